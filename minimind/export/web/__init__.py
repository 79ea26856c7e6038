"""A static folder in which a browser chats with the model: page, runtime and weights."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from minimind.errors import ConfigError, MiniMindError

PAGE = Path(__file__).parent
PAGE_FILES = ("index.html", "chat.js", "words.js", "page.css")
MODEL, RUNTIME = "model", "runtime"
"""Folders beside the page."""

TIMEOUT_SECONDS = 30


class Package(NamedTuple):
    """A package of npm, and what of it the page needs.

    Attributes:
        integrity: SHA-512 of its archive, as npm writes it.
        files: paths in the package.
    """

    name: str
    version: str
    integrity: str
    files: tuple[str, ...]


PACKAGES = (
    Package(
        "@huggingface/transformers",
        "4.3.2",
        "sha512-V3+dqf3iWlRYJ9I9GreM3zGQd0lAXnnoPeddmkOQYWAE"
        "E4l/+Fi6p7tx/qVUJlKQgLXGim2W76rTOzz+eC0i7g==",
        ("dist/transformers.min.js",),
    ),
    # The version that transformers.js itself asks for.
    Package(
        "onnxruntime-web",
        "1.31.0-dev.20260914-8d85527a0",
        "sha512-Iy7rtadoBgxS/LLvDr3QW38DB1PNXRnr0GJMcL0TAt7c"
        "9qjgVQl83UlGCVyeAnK2InpmW8Uc3PL8XIuqtDeF6g==",
        (
            "dist/ort-wasm-simd-threaded.asyncify.mjs",
            "dist/ort-wasm-simd-threaded.asyncify.wasm",
        ),
    ),
)
"""What runs the model in the browser."""


def runtime_names() -> list[str]:
    """The files of the runtime, without folders."""
    return [Path(file).name for package in PACKAGES for file in package.files]


def write_page(folder: Path, variant: str, context: int) -> None:
    """Write what is shown, and ``settings.json``, which it reads.

    Args:
        variant: the graph to load, as transformers.js calls it.
        context: tokens that prompt and answer may have together.
    """
    for name in PAGE_FILES:
        shutil.copyfile(PAGE / name, folder / name)
    settings = {"dtype": variant, "context": context, "answer": min(256, context // 2)}
    (folder / "settings.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")


def write_runtime(folder: Path, given: Path | None) -> None:
    """Fill ``folder`` with the runtime, from ``given`` or from npm.

    Raises:
        ConfigError: ``given`` lacks a file, or npm is absent or has no answer.
        MiniMindError: an archive is not the one whose hash is pinned here.
    """
    folder.mkdir()
    if given is not None:
        for name in runtime_names():
            if not (given / name).is_file():
                raise ConfigError(
                    f"--runtime {given} has no {name}; it takes the folder runtime/ of an earlier "
                    "export, or the files of the npm packages "
                    + " and ".join(f"{p.name}@{p.version}" for p in PACKAGES)
                )
            shutil.copyfile(given / name, folder / name)
        return
    for package in PACKAGES:
        for name, data in unpack(fetch(package), package.files).items():
            (folder / Path(name).name).write_bytes(data)


def fetch(package: Package) -> bytes:
    """The archive of a package, by npm's own client: it knows the user's mirror and proxy.

    Raises:
        ConfigError, MiniMindError: as :func:`write_runtime`.
    """
    wanted = f"{package.name}@{package.version}"
    otherwise = "--runtime DIR takes it from the folder runtime/ of an earlier export"
    npm = shutil.which("npm")
    if npm is None:
        raise ConfigError(f"no npm to fetch {wanted}: install Node.js; {otherwise}")
    with tempfile.TemporaryDirectory() as name:
        command = [
            npm,
            "pack",
            wanted,
            "--ignore-scripts",
            "--logs-max=0",
            "--pack-destination",
            name,
        ]
        try:
            done = subprocess.run(
                [*command, f"--fetch-timeout={TIMEOUT_SECONDS * 1000}", "--fetch-retries=1"],
                cwd=name,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
            )
        except OSError as error:
            raise ConfigError(f"{npm} does not start ({error.strerror}); {otherwise}") from None
        archives = list(Path(name).glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            said = done.stderr.strip() or f"exit status {done.returncode}"
            reason = said.splitlines()[0]
            raise ConfigError(f"{wanted} cannot be fetched from npm ({reason}); {otherwise}")
        archive = archives[0].read_bytes()
    found = f"sha512-{base64.b64encode(hashlib.sha512(archive).digest()).decode()}"
    if found != package.integrity:
        raise MiniMindError(f"what npm fetched is not {wanted} as it was: its hash is {found}")
    return archive


def unpack(archive: bytes, files: Sequence[str]) -> dict[str, bytes]:
    """The contents of some files of an npm archive, by their paths in the package."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        for file in files:
            member = members.extractfile(f"package/{file}")
            assert member is not None, f"{file} is a file of the pinned package"
            found[file] = member.read()
    return found
