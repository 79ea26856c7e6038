"""Turns jsonl lines into token ids, in worker processes of its own.

A worker is a plain subprocess that talks over one socket: it imports neither torch nor the
program that started it, and when that program dies, however, the socket closes and the
worker ends. Slurm's signals go to every process of a step; a worker leaves them to its parent.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from minimind.data.chunks import BadRow, Chunk
from minimind.data.conversations import ChatTemplate
from minimind.data.rows import parse_rows
from minimind.errors import MiniMindError
from minimind.system.signals import IGNORED_BY_WORKERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEGMENT_CHARS = 1 << 20
"""Longer texts are encoded in segments that end with a line, to bound the memory."""

# Isolated, with this process's own path: what lies in the current folder is not imported. A signal
# to all processes must not end a worker while it still imports, either.
_SERVE = f"""\
import signal, sys
for number in {[int(number) for number in IGNORED_BY_WORKERS]}:
    signal.signal(number, signal.SIG_IGN)
sys.path[:] = sys.argv[2:]
from minimind.data.tokenize.encoder import serve
serve(int(sys.argv[1]))
"""

_Key = TypeVar("_Key")


@dataclass(frozen=True)
class EncoderSpec:
    """What a worker needs to know; ``bos_id``/``eos_id`` are None where texts get none."""

    tokenizer_json: str
    bos_id: int | None
    eos_id: int | None
    dtype: str
    text_field: str
    chat: ChatTemplate | None = None


@dataclass(frozen=True)
class Encoded:
    """The documents of a chunk: all tokens in a row, and per document tokens and UTF-8 bytes."""

    tokens: NDArray[Any]
    lengths: NDArray[np.uint64]
    doc_bytes: NDArray[np.uint64]
    bad_rows: list[BadRow]


class ChunkEncoder:
    """Encodes chunks of jsonl with one tokenizer."""

    def __init__(self, spec: EncoderSpec) -> None:
        from tokenizers import Tokenizer

        self._spec = spec
        self._tokenizer = Tokenizer.from_str(spec.tokenizer_json)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._bos = [] if spec.bos_id is None else [spec.bos_id]
        self._eos = [] if spec.eos_id is None else [spec.eos_id]

    def encode(self, data: bytes, first_line: int) -> Encoded:
        """Encode each row as BOS, its text's tokens, EOS."""
        texts: list[str] = []
        bad_rows: list[BadRow] = []
        for row in parse_rows(data, first_line, self._spec.text_field, self._spec.chat):
            if isinstance(row, BadRow):
                bad_rows.append(row)
            else:
                texts.append(row)
        # One list and one array: an array for each document would cost a twentieth of the time.
        tokens: list[int] = []
        lengths: list[int] = []
        for ids in self._ids(texts):
            begin = len(tokens)
            tokens += self._bos
            tokens += ids
            tokens += self._eos
            lengths.append(len(tokens) - begin)
        return Encoded(
            np.array(tokens, self._spec.dtype),
            np.array(lengths, np.uint64),
            np.array([len(text.encode()) for text in texts], np.uint64),
            bad_rows,
        )

    def _ids(self, texts: list[str]) -> Iterator[list[int]]:
        batch: list[str] = []
        size = 0
        for text in texts:
            if len(text) > SEGMENT_CHARS:
                yield from self._batch(batch)
                batch, size = [], 0
                parts = (self._batch([segment]) for segment in segments(text, SEGMENT_CHARS))
                yield [token for part in parts for ids in part for token in ids]
                continue
            batch.append(text)
            size += len(text)
            if size > SEGMENT_CHARS:
                yield from self._batch(batch)
                batch, size = [], 0
        yield from self._batch(batch)

    def _batch(self, texts: list[str]) -> Iterator[list[int]]:
        for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False):
            yield encoding.ids


def segments(text: str, limit: int) -> Iterator[str]:
    """Cut a text into parts of at most ``limit`` characters, after a line's end if there is one."""
    start = 0
    while start < len(text):
        end = start + limit
        if end < len(text):
            end = text.rfind("\n", start, end) + 1 or end
        yield text[start:end]
        start = end


def encode_in_order(
    chunks: Iterable[tuple[_Key, Chunk]], spec: EncoderSpec, n_workers: int
) -> Generator[tuple[_Key, Chunk, Encoded], None, None]:
    """Encode chunks in ``n_workers`` processes; results come in the order of the chunks.

    At most two chunks a worker are under way, so memory is bounded however long the input.
    Closing the generator ends the workers.

    Raises:
        MiniMindError: a worker died (for example, the kernel killed it for its memory).
    """
    workers: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    started: list[_Worker] = []
    pending: deque[tuple[_Key, Chunk, Future[Encoded]]] = deque()

    def encode(chunk: Chunk) -> Encoded:
        worker = workers.get()
        try:
            return worker.encode(chunk)
        finally:
            workers.put(worker)

    threads = ThreadPoolExecutor(n_workers, thread_name_prefix="tokenise")
    try:
        for _ in range(n_workers):
            started.append(_Worker(spec))
            workers.put(started[-1])
        for key, chunk in chunks:
            pending.append((key, chunk, threads.submit(encode, chunk)))
            if len(pending) >= 2 * n_workers:
                key, chunk, future = pending.popleft()
                yield key, chunk, future.result()
        while pending:
            key, chunk, future = pending.popleft()
            yield key, chunk, future.result()
    finally:
        for _, _, future in pending:
            future.cancel()
        threads.shutdown(wait=True)
        for worker in started:
            worker.close()


class _Worker:
    """One worker process; used by one thread at a time."""

    def __init__(self, spec: EncoderSpec) -> None:
        self._connection, child = Pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _SERVE, str(child.fileno()), *sys.path],
            stdin=subprocess.DEVNULL,
            pass_fds=[child.fileno()],
            env={
                **os.environ,
                "TOKENIZERS_PARALLELISM": "false",
                "OPENBLAS_NUM_THREADS": "1",
            },
        )
        child.close()
        self._unsent_spec: EncoderSpec | None = spec

    def encode(self, chunk: Chunk) -> Encoded:
        try:
            if self._unsent_spec is not None:  # not sooner: sending waits for the start
                self._connection.send(self._unsent_spec)
                self._unsent_spec = None
            self._connection.send((chunk.data, chunk.first_line))
            answer = self._connection.recv()
        except (EOFError, OSError):
            code = self._process.wait()
            raise MiniMindError(
                f"a tokenising process ended with code {code}"
                + ("; was it killed for its memory?" if code == -signal.SIGKILL else "")
            ) from None
        if isinstance(answer, str):
            raise MiniMindError(f"a tokenising process failed:\n{answer}")
        return answer

    def close(self) -> None:
        self._connection.close()
        self._process.wait()


def serve(fd: int) -> None:
    """The worker's side: encode what comes until the other side closes."""
    connection: Connection = Connection(fd)
    try:
        encoder = ChunkEncoder(connection.recv())
        while True:
            data, first_line = connection.recv()
            try:
                answer: Encoded | str = encoder.encode(data, first_line)
            # BaseException: a Rust panic is none of Exception.
            except BaseException:
                answer = traceback.format_exc()
            connection.send(answer)
    except (EOFError, OSError):
        pass
