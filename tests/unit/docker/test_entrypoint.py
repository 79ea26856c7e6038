from __future__ import annotations

import fnmatch
import os
import subprocess
import sys
from pathlib import Path

import entrypoint
import pytest

from minimind.cli import COMMANDS


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that the entrypoint would have become, instead of becoming them."""
    commands: list[list[str]] = []
    monkeypatch.setattr(os, "execvp", lambda file, words: commands.append(list(words)))
    for name in entrypoint.RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return commands


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(entrypoint, "visible_gpus", lambda: count)


@pytest.mark.parametrize("words", [[], ["help"], ["--help"]])
def test_no_argument_prints_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert entrypoint.main(words) == 0
    said = capsys.readouterr().out
    for command in (*COMMANDS, "launcher", "bash"):
        assert f"\n  {command} " in said


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "pretrain"])
def test_commands_of_minimind(command: str, became: list[list[str]]) -> None:
    entrypoint.main([command, "--x", "a b"])
    assert became == [["minimind", command, "--x", "a b"]]


@pytest.mark.parametrize("words", [["bash"], ["launcher", "status"], ["nvidia-smi", "-L"]])
def test_other_programs(words: list[str], became: list[list[str]]) -> None:
    entrypoint.main(words)
    assert became == [words]


def test_unknown_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert entrypoint.main(["no-such-program"]) == 127
    assert "no-such-program: No such file" in capsys.readouterr().err


def test_one_rank_per_gpu(monkeypatch: pytest.MonkeyPatch, became: list[list[str]]) -> None:
    gpus(monkeypatch, 4)
    entrypoint.main(["pretrain", "--epochs", "2"])
    assert became == [["minimind", "pretrain", "--epochs", "2", "--procs", "4"]]


def test_one_gpu_needs_no_starter(monkeypatch: pytest.MonkeyPatch, became: list[list[str]]) -> None:
    gpus(monkeypatch, 1)
    entrypoint.main(["pretrain"])
    assert became == [["minimind", "pretrain"]]


def test_no_gpu_is_said(
    monkeypatch: pytest.MonkeyPatch,
    became: list[list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    gpus(monkeypatch, 0)
    entrypoint.main(["pretrain"])
    assert became == [["minimind", "pretrain"]]
    assert capsys.readouterr().out == "no GPU visible: training on CPU\n"


@pytest.mark.parametrize(
    "flags",
    [
        ["--device", "cpu"],
        ["--device=cpu"],
        ["--device", "cuda:1"],
        ["--device", "npu:1"],
        ["--help"],
    ],
)
def test_flags_that_mean_one_process(
    flags: list[str],
    monkeypatch: pytest.MonkeyPatch,
    became: list[list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    gpus(monkeypatch, 8)
    entrypoint.main(["pretrain", *flags])
    assert became == [["minimind", "pretrain", *flags]]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", entrypoint.RANK_VARIABLES)
def test_ranks_started_by_somebody_else(
    name: str, monkeypatch: pytest.MonkeyPatch, became: list[list[str]]
) -> None:
    gpus(monkeypatch, 8)
    monkeypatch.setenv(name, "0")
    entrypoint.main(["pretrain"])
    assert became == [["minimind", "pretrain"]]


@pytest.mark.parametrize("words", [["--procs", "3"], ["--procs=3"], ["--procs", "0"]])
def test_a_number_of_ranks_goes_on_to_minimind(
    words: list[str], monkeypatch: pytest.MonkeyPatch, became: list[list[str]]
) -> None:
    gpus(monkeypatch, 8)
    entrypoint.main(["pretrain", *words, "--seed", "1"])
    assert became == [["minimind", "pretrain", *words, "--seed", "1"]]


def test_no_device_node_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entrypoint, "DEVICE_FILES", ("/nowhere/nvidia*",))
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("loaded torch"))
    assert entrypoint.visible_gpus() == 0


def test_torch_counts_where_there_is_a_device_node(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    count = "class accelerator:\n    device_count = staticmethod(lambda: 5)\n"
    (tmp_path / "torch.py").write_text(f"print('loaded 1 plug-in')\n{count}")
    (tmp_path / "davinci0").touch()
    monkeypatch.setattr(entrypoint, "DEVICE_FILES", (str(tmp_path / "davinci[0-9]*"),))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert entrypoint.visible_gpus() == 5


@pytest.mark.parametrize("module", ["raise ImportError", "class accelerator: device_count = str"])
def test_a_torch_that_does_not_count_means_one_rank(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str
) -> None:
    (tmp_path / "torch.py").write_text(module)
    monkeypatch.setattr(entrypoint, "DEVICE_FILES", (str(tmp_path),))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert entrypoint.visible_gpus() == 0


def test_every_drivers_files_are_looked_for() -> None:
    names = ("/dev/nvidia0", "/dev/kfd", "/dev/davinci15", "/dev/dxg")
    pairs = zip(names, entrypoint.DEVICE_FILES, strict=True)
    assert all(fnmatch.fnmatch(name, pattern) for name, pattern in pairs)


def test_places_that_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entrypoint, "writable", lambda folder: folder in ("/runs", str(tmp_path)))
    monkeypatch.setattr(entrypoint, "private", lambda folder: True)
    places = entrypoint.writable_places({"HOME": str(tmp_path), "TRITON_CACHE_DIR": "/mine"})
    assert places == {
        "MINIMIND_CACHE": "/runs/.cache/minimind",
        "TORCHINDUCTOR_CACHE_DIR": "/runs/.cache/torchinductor",
    }


def test_compiled_code_is_not_kept_where_others_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entrypoint, "writable", lambda folder: True)
    monkeypatch.setattr(entrypoint, "private", lambda folder: False)
    assert entrypoint.writable_places({}) == {"MINIMIND_CACHE": "/runs/.cache/minimind"}


def test_home_of_a_read_only_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entrypoint, "writable", lambda folder: False)
    places = entrypoint.writable_places({"HOME": "/home/minimind"})
    assert list(places) == ["HOME"]
    assert Path(places["HOME"]).is_dir()
    Path(places["HOME"]).rmdir()


def test_entrypoint_loads_no_torch() -> None:
    code = "import sys; sys.path.append(sys.argv[1]); import entrypoint"
    code += "; print('torch' in sys.modules)"
    folder = str(Path(entrypoint.__file__).parent)
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
