import os

import pytest
import torch
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from minimind.training.compile_cache import VARIABLE, cost_of_compiling, keep_compiled_code

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    # Set first, so that what the code under test sets is taken back after the test.
    monkeypatch.setenv(VARIABLE, "")


def test_compiled_code_lies_in_the_cache_folder_for_the_user_alone(tmp_path):
    keep_compiled_code(str(tmp_path), CPU)
    home = tmp_path / f"compiled-{os.getuid()}"
    assert os.environ[VARIABLE].startswith(f"{home}/torch-{torch.__version__}-")
    assert home.stat().st_mode & 0o777 == 0o700
    first = os.environ.pop(VARIABLE)
    keep_compiled_code(str(tmp_path), CPU)
    assert os.environ[VARIABLE] == first


def test_another_kind_of_processor_has_its_own(tmp_path, monkeypatch):
    keep_compiled_code(str(tmp_path), CPU)
    first = os.environ.pop(VARIABLE)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    keep_compiled_code(str(tmp_path), CPU)
    assert os.environ[VARIABLE] != first


def test_so_has_a_part_of_its_instructions(tmp_path, monkeypatch):
    keep_compiled_code(str(tmp_path), CPU)
    first = os.environ.pop(VARIABLE)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    keep_compiled_code(str(tmp_path), CPU)
    assert os.environ[VARIABLE] != first


def test_what_the_user_has_set_stands(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, "/elsewhere")
    keep_compiled_code(str(tmp_path), CPU)
    assert os.environ[VARIABLE] == "/elsewhere"


def test_what_torch_has_set_by_itself_does_not(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, default_cache_dir())
    keep_compiled_code(str(tmp_path), CPU)
    assert os.environ[VARIABLE].startswith(str(tmp_path))


def test_a_folder_that_others_may_write_is_not_used(tmp_path, caplog):
    home = tmp_path / f"compiled-{os.getuid()}"
    home.mkdir()
    home.chmod(0o777)
    keep_compiled_code(str(tmp_path), CPU)
    assert not os.environ[VARIABLE]
    assert f"others may write in {home}" in caplog.text


def test_a_link_to_elsewhere_is_not_followed(tmp_path):
    (tmp_path / "target").mkdir(mode=0o700)
    (tmp_path / f"compiled-{os.getuid()}").symlink_to(tmp_path / "target")
    keep_compiled_code(str(tmp_path), CPU)
    assert not os.environ[VARIABLE]


def test_in_a_groups_cache_it_lies_in_the_users_own(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o2770)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    keep_compiled_code(str(cache), CPU)
    assert os.environ[VARIABLE].startswith(str(tmp_path / "own" / "minimind"))
    assert not list(cache.iterdir())


def test_without_a_place_torch_uses_its_own(tmp_path):
    (tmp_path / "file").touch()
    keep_compiled_code(str(tmp_path / "file"), CPU)
    assert not os.environ[VARIABLE]


def test_the_cost_of_a_start_is_told(tmp_path):
    keep_compiled_code(str(tmp_path), CPU)
    assert "first start" in cost_of_compiling()
    os.mkdir(os.path.join(os.environ[VARIABLE], "fxgraph"))
    assert os.environ[VARIABLE] in cost_of_compiling()
