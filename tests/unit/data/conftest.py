from __future__ import annotations

import pytest

from minimind.data.chunks import Chunk
from minimind.data.tokenize import encoder
from minimind.data.tokenize.encoder import ChunkEncoder, Encoded, EncoderSpec
from tests.unit.data.helpers import make_tokenizer


@pytest.fixture(scope="session")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


class WorkerHere:
    """A worker that is no process of its own, which would start for longer than it works."""

    def __init__(self, spec: EncoderSpec) -> None:
        self._encoder = ChunkEncoder(spec)

    def encode(self, chunk: Chunk) -> Encoded:
        return self._encoder.encode(chunk.data, chunk.first_line)

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def workers_here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless a test is marked ``worker_processes``."""
    if request.node.get_closest_marker("worker_processes") is None:
        monkeypatch.setattr(encoder, "_Worker", WorkerHere)
