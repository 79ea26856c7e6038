"""Where an export goes: whole or absent, and never over something else by chance."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from minimind.errors import ConfigError
from minimind.system.durable import folder_when_done, write_durably

_WEIGHTS = ("*.safetensors", "*.onnx", "onnx/*.onnx", "model/onnx/*.onnx")


def check_target(target: Path, force: bool) -> None:
    """Find out before the work whether ``target`` may be written.

    Raises:
        ConfigError: it exists and ``force`` is not given, or is no earlier export.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not force:
        raise ConfigError(f"--out {target} exists; choose another, or replace it with --force")
    if target.is_dir() and not _is_export(target):
        raise ConfigError(
            f"--out {target} is a folder with other things in it; --force replaces only exports"
        )


def _is_export(folder: Path) -> bool:
    has_weights = any(next(folder.glob(pattern), None) for pattern in _WEIGHTS)
    return has_weights and any((folder / p / "config.json").is_file() for p in ("", "model"))


@contextlib.contextmanager
def new_folder(target: Path, force: bool) -> Iterator[Path]:
    """Yield a folder to fill; it takes the name ``target`` when the body is done.

    Raises:
        ConfigError: as :func:`check_target`, or the place cannot be written.
    """
    check_target(target, force)

    def remove_earlier() -> None:
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)

    with contextlib.ExitStack() as stack:
        try:
            building = stack.enter_context(folder_when_done(target, remove_earlier))
        except OSError as error:
            raise ConfigError(f"--out {target} cannot be written: {error.strerror}") from None
        yield building


def new_file(target: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a file; it takes the name ``target`` when it is done.

    Raises:
        ConfigError: the place cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_durably(target, write)
    except OSError as error:
        raise ConfigError(f"--out {target} cannot be written: {error.strerror}") from None
