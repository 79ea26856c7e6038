"""Writes text files that are whole or absent, plain or compressed by their suffix."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from minimind.errors import ConfigError, DataError
from minimind.system.durable import sync_file, take_name, temporary_name


def check_outputs(outputs: Sequence[Path], inputs: Sequence[Path], *, overwrite: bool) -> None:
    """See that writing ``outputs`` harms nothing.

    Raises:
        ConfigError: one is an input, is there already, or is named twice.
    """
    seen: set[Path] = set()
    for output in outputs:
        resolved = output.resolve()
        if resolved in {path.resolve() for path in inputs}:
            raise ConfigError(f"{output}: is one of the files to read; write to another one")
        if resolved in seen:
            raise ConfigError(f"{output}: is named for two outputs")
        seen.add(resolved)
        if output.is_dir():
            raise ConfigError(f"{output}: is a folder; name a file")
        if output.exists() and not overwrite:
            raise ConfigError(f"{output}: exists; add --overwrite to replace it")


@contextlib.contextmanager
def writing(outputs: Sequence[Path]) -> Iterator[list[IO[bytes]]]:
    """Open temporary files beside ``outputs``; on success they take the names, synced to disk.

    ``.gz`` and ``.zst`` are compressed; the same bytes in give the same bytes out.

    Raises:
        DataError: a folder cannot be written or the disk is full; nothing has changed.
    """
    temporaries: list[Path] = []
    try:
        with contextlib.ExitStack() as files:
            streams = []
            for output in outputs:
                output.parent.mkdir(parents=True, exist_ok=True)
                temporaries.append(temporary_name(output))
                raw = files.enter_context(open(temporaries[-1], "xb"))
                streams.append(files.enter_context(_compressed(output, raw)))
            yield streams
        for temporary in temporaries:
            sync_file(temporary)
        for temporary, output in zip(temporaries, outputs, strict=True):
            take_name(temporary, output)
    except OSError as error:
        raise DataError(f"{outputs[0]}: cannot be written: {error.strerror or error}") from None
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)


def _compressed(path: Path, raw: IO[bytes]) -> Any:
    if path.suffix == ".gz":
        return gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0)
    if path.suffix == ".zst":
        import zstandard

        return zstandard.ZstdCompressor().stream_writer(raw, closefd=False)
    return contextlib.nullcontext(raw)
