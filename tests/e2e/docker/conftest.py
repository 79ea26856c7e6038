"""One Docker engine and one image for all tests of the image."""

from __future__ import annotations

import ast
import base64
import http.server
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.docker.engine import Engine, NoDocker, docker_engine, import_base
from tests.e2e.lab import REPOSITORY
from tests.needs import lacks

CONTEXT = (
    *("LICENSE", "README.md", "pyproject.toml", "requirements.lock", ".dockerignore"),
    *("docker", "launcher", "minimind"),
)
IMAGE_VARIABLE = "MINIMIND_TEST_IMAGE"
"""Names an image that is there already (`make image-test`); without it one is built."""

PASSWORD = "canary-3f9c1d"


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    # Not pytest's own folder: the path of a socket may have 107 characters at most.
    folder = Path(tempfile.mkdtemp(prefix="minimind-docker-"))
    try:
        with docker_engine(folder) as running:
            yield running
    except NoDocker as error:
        lacks(f"no Docker: {error}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Site:
    """What is special about building here: where packages come from, and whom to trust."""

    base_image: str
    find_links: str
    ca_certificate: str | None
    pip_conf: Path
    passwords_seen: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """Variables for docker/build.sh."""
        found = {
            "BASE_IMAGE": self.base_image,
            "TORCH_VARIANT": "cpu",
            "PIP_CONF": str(self.pip_conf),
            "BUILD_NETWORK": "host",
        }
        if self.find_links:
            found["PIP_FIND_LINKS"] = self.find_links
        if self.ca_certificate:
            found["CA_CERT"] = self.ca_certificate
        return found


def pip_setting(name: str) -> str:
    """What pip is configured to use here, by its variables or files; empty: nothing."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    found = ""
    for line in listing.stdout.splitlines():
        key, _, value = line.partition("=")
        if key in (f"global.{name}", f"install.{name}", f":env:.{name}"):
            found = found or str(ast.literal_eval(value))
    return found


def ca_certificate() -> str | None:
    """The certificates that pip trusts here, where that is a setting of this machine."""
    candidates = [pip_setting("cert"), os.environ.get("SSL_CERT_FILE")]
    candidates.append(ssl.get_default_verify_paths().cafile)
    return next((path for path in candidates if path and Path(path).is_file()), None)


@pytest.fixture(scope="session")
def site(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A place with a private index, which asks for a password and has nothing."""
    seen: list[str] = []

    class Index(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, _, value = self.headers.get("Authorization", "").partition(" ")
            if kind != "Basic":
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="wheels"')
                self.end_headers()
                return
            seen.append(base64.b64decode(value).decode())
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!DOCTYPE html><html><body></body></html>")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://builder:{PASSWORD}@127.0.0.1:{server.server_port}/simple/"
    pip_conf = tmp_path_factory.mktemp("pip") / "pip.conf"
    pip_conf.write_text(f"[install]\nextra-index-url = {address}\n" + index_settings())
    yield Site(
        base_image=import_base(engine),
        find_links=pip_setting("find-links"),
        ca_certificate=ca_certificate(),
        pip_conf=pip_conf,
        passwords_seen=seen,
    )
    server.shutdown()


def index_settings() -> str:
    """This machine's package index, where one is set that a build can reach, too."""
    index = pip_setting("index-url")
    return f"[global]\nindex-url = {index}\n" if index.startswith("http") else ""


@dataclass(frozen=True)
class Builder:
    """Builds images from a copy of the sources, as ``make build-image`` does."""

    engine: Engine
    site: Site
    sources: Path

    def build(self, tag: str, **variables: str) -> str:
        """Builds and returns what the build said."""
        done = self.try_to_build(tag, **variables)
        assert done.returncode == 0, done.stdout[-6000:]
        return done.stdout

    def try_to_build(self, tag: str, **variables: str) -> subprocess.CompletedProcess[str]:
        path = f"{Path(self.engine.client).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**self.engine.environment, "PATH": path}
        for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "CA_CERT"):
            environment.pop(name, None)
        return subprocess.run(
            [self.sources / "docker" / "build.sh", tag],
            env={**environment, **self.site.environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1200,
        )


@pytest.fixture(scope="session")
def builder(engine: Engine, site: Site, tmp_path_factory: pytest.TempPathFactory) -> Builder:
    sources = tmp_path_factory.mktemp("sources")
    for name in CONTEXT:
        origin = REPOSITORY / name
        if origin.is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(origin, sources / name, ignore=ignore)
        else:
            shutil.copy(origin, sources / name)
    return Builder(engine, site, sources)


@pytest.fixture(scope="session")
def image(engine: Engine, request: pytest.FixtureRequest) -> str:
    """The image under test."""
    given = os.environ.get(IMAGE_VARIABLE)
    if given:
        engine.ok("image", "inspect", given)
        return given
    built: Builder = request.getfixturevalue("builder")
    built.build("minimind-test:1", VERSION="7.8.9", REVISION="abc123")
    return "minimind-test:1"
