from __future__ import annotations

from pathlib import Path

import pytest

from tools.check_devices import ASKED, KNOWS, check


def planted(root: Path, file: str, text: str) -> list[str]:
    """What is wrong with a tree of this one file."""
    path = root / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return check(root)


def test_one_module_of_each_package_knows_cuda() -> None:
    assert check() == []


@pytest.mark.parametrize("folder, knows", ASKED.items())
def test_every_folder_is_looked_at(tmp_path: Path, folder: str, knows: str) -> None:
    found = planted(tmp_path, f"{folder}/new.py", "import torch\ntorch.cuda.synchronize()\n")
    assert found == [f"{folder}/new.py:2: cuda: ask {knows} instead"]


@pytest.mark.parametrize(
    "code",
    [
        "torch.cuda.synchronize()",
        "from torch import cuda",
        "import torch.cuda",
        "from torch.cuda import Event",
        "if kind == 'cuda': pass",
        "name = f'cuda:{index}'",
        "activities.append(ProfilerActivity.CUDA)",
        "def f(cuda): pass",
        "f(cuda=1)",
        "tensor.is_cuda",
    ],
)
def test_code_elsewhere_is_named_with_its_line(tmp_path: Path, code: str) -> None:
    found = planted(tmp_path, "minimind/training/step.py", f"import torch\n{code}\n")
    assert len(found) == 1
    assert found[0].startswith("minimind/training/step.py:2: ")
    assert found[0].endswith(f"ask {KNOWS} instead")


def test_texts_may_name_it(tmp_path: Path) -> None:
    texts = '"""CUDA."""\n# cuda\nhelp = "cpu, cuda or mps"\ndef f():\n    """cuda"""\n'
    assert planted(tmp_path, "minimind/config.py", texts) == []


@pytest.mark.parametrize("knows", sorted(set(ASKED.values())))
def test_so_may_the_module_that_knows(tmp_path: Path, knows: str) -> None:
    assert planted(tmp_path, knows, "torch.cuda.synchronize()\n") == []
