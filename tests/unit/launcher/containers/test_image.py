from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from launcher.containers import image
from minimind.errors import ConfigError

DIGEST = "sha256:" + "ab" * 32


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for the runtimes' tools: they note their words, and write the file asked for."""
    folder = tmp_path / "tools"
    folder.mkdir()
    log = tmp_path / "called"
    script = f'#!/bin/sh\necho "$(basename "$0") $*" >> "{log}"\n'
    for name, position in (("enroot", "$3"), ("apptainer", "$2")):
        write_program(folder / name, script + f'printf image > "{position}"\n')
    write_program(folder / "ch-convert", script + 'mkdir "$6"\n')
    inspect = f'[ "$5" = local:1 ] && echo {DIGEST}\n'
    write_program(folder / "docker", "#!/bin/sh\n" + inspect)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    return log


def write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.mark.parametrize(
    "runtime, reference, command",
    [
        ("enroot", "local:1", "enroot import --output {} dockerd://local:1"),
        ("pyxis", "team/mm:2", "enroot import --output {} docker://team/mm:2"),
        ("enroot", "ghcr.io/t/mm:2", "enroot import --output {} docker://ghcr.io#t/mm:2"),
        ("enroot", "host:5000/mm", "enroot import --output {} docker://host:5000#mm"),
        ("apptainer", "local:1", "apptainer build {} docker-daemon:local:1"),
        ("apptainer", "ghcr.io/t/mm:2", "apptainer build {} docker://ghcr.io/t/mm:2"),
        ("charliecloud", "local:1", "ch-convert -i docker -o dir local:1 {}"),
    ],
)
def test_command(tools: Path, tmp_path: Path, runtime: str, reference: str, command: str) -> None:
    target, origin = image.import_image(reference, runtime, tmp_path / "target")
    assert tools.read_text() == command.format(tmp_path / ".partial-target" / "target") + "\n"
    assert target == tmp_path / "target"
    assert target.exists()
    assert image.read_origin(target) == origin
    assert (origin.reference, origin.runtime) == (reference, runtime)
    assert origin.digest == (DIGEST if reference == "local:1" else None)


def test_origin_of_a_file(tools: Path) -> None:
    target, origin = image.import_image(f"ghcr.io/t/mm@{DIGEST}", "apptainer")
    assert target.name == "mm.sif"
    assert origin.digest == DIGEST
    assert origin.sha256 == "sha256:" + hashlib.sha256(b"image").hexdigest()
    stored = json.loads(image.record_path(target).read_text())
    assert stored["digest"] == DIGEST


@pytest.mark.parametrize(
    "reference, name",
    [("ghcr.io/team/minimind:1.0", "minimind-1.0"), (f"mm@{DIGEST}", "mm"), ("mm", "mm")],
)
def test_default_name(reference: str, name: str) -> None:
    assert image.default_name(reference) == name


def test_tag_of_a_local_image() -> None:
    assert image.with_tag("host:5000/mm") == "host:5000/mm:latest"
    assert image.with_tag("mm:3") == "mm:3"


def test_failed_import_leaves_nothing(tools: Path, tmp_path: Path) -> None:
    write_program(tmp_path / "tools" / "apptainer", '#!/bin/sh\nprintf half > "$2"\nexit 3\n')
    with pytest.raises(ConfigError, match="apptainer could not import mm:1"):
        image.import_image("mm:1", "apptainer", tmp_path / "mm.sif")
    assert not list(tmp_path.glob("*mm.sif*"))
    assert not list(tmp_path.glob(".partial*"))


def test_what_a_killed_import_left_is_removed(tools: Path, tmp_path: Path) -> None:
    (tmp_path / ".partial-mm.sif").mkdir(mode=0o700)
    (tmp_path / ".partial-mm.sif" / "mm.sif").write_text("half")
    image.import_image("mm:1", "apptainer", tmp_path / "mm.sif")
    assert (tmp_path / "mm.sif").read_text() == "image"
    assert not list(tmp_path.glob(".partial*"))


def test_a_planted_link_is_not_written_through(tools: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (tmp_path / ".partial-mm.sif").symlink_to(precious)
    with pytest.raises(
        ConfigError, match=r"partial-mm\.sif: .*; remove it, or choose another --out"
    ):
        image.import_image("mm:1", "apptainer", tmp_path / "mm.sif")
    assert not list(precious.iterdir())


def test_what_is_there_is_kept(tools: Path, tmp_path: Path) -> None:
    (tmp_path / "mm.sif").write_text("precious")
    with pytest.raises(ConfigError, match=r"mm\.sif exists"):
        image.import_image("mm:1", "apptainer", tmp_path / "mm.sif")
    assert (tmp_path / "mm.sif").read_text() == "precious"


@pytest.mark.parametrize(
    "runtime, reference, message",
    [
        ("docker", "mm:1", "nothing to import"),
        ("charliecloud", "elsewhere:1", "docker pull it first"),
    ],
)
def test_refusals(tools: Path, runtime: str, reference: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        image.import_image(reference, runtime)


def test_missing_tool() -> None:
    with pytest.raises(ConfigError, match="enroot is not installed"):
        image.import_image("mm:1", "pyxis", which=lambda name: None)


def test_no_record_no_origin(tmp_path: Path) -> None:
    assert image.read_origin(tmp_path / "mm.sif") is None
    image.record_path(tmp_path / "mm.sif").write_text("[]")
    assert image.read_origin(tmp_path / "mm.sif") is None


def test_the_command_line_makes_an_image_and_says_what_is_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from launcher.cli import main

    tools = tmp_path / "bin"
    tools.mkdir()
    fake = tools / "apptainer"
    fake.write_text('#!/bin/sh\nprintf image > "$2"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    target = tmp_path / "minimind.sif"
    words = ["image", "import", "registry.example.org/minimind:1", "--container", "apptainer"]
    assert main([*words, "--out", str(target)]) in (None, 0)
    assert target.read_text() == "image"
    assert f"launcher submit --image {target} --container apptainer" in capsys.readouterr().out
    assert main([*words, "--out", str(target)]) == 2
