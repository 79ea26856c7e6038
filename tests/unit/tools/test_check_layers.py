from __future__ import annotations

from pathlib import Path

import pytest

from tools.check_layers import check

HIGH = "minimind.report.page"
TREE = {
    "minimind/__init__.py": "",
    "minimind/report/page.py": "",
    "minimind/charts/charts.py": "",
    "launcher/__init__.py": "",
    "launcher/task.py": "",
    "launcher/inspect/probe.py": "import torch\n",
    "launcher/slurm/client.py": "",
}


def planted(root: Path, file: str, text: str) -> list[str]:
    """What is wrong with a tree that is in order but for one file."""
    for name, content in {**TREE, file: text}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return check(root)


def test_imports_of_this_tree_point_down() -> None:
    assert check() == []


def test_a_tree_in_order_is_not_complained_about(tmp_path: Path) -> None:
    assert (
        planted(tmp_path, HIGH.replace(".", "/") + ".py", "import minimind.charts.charts\n") == []
    )


@pytest.mark.parametrize(
    "text",
    [
        f"import {HIGH}\n",
        "from minimind.report import page\n",
        "from ..report import page\n",
        "from ..report.page import render\n",
        f"def draw():\n    from {HIGH} import render\n",
        f"import importlib\nimportlib.import_module('{HIGH}')\n",
        f"COMMAND = ['-m', '{HIGH}']\n",
    ],
)
def test_an_import_that_points_up_is_found(text: str, tmp_path: Path) -> None:
    (fault,) = planted(tmp_path, "minimind/charts/charts.py", text)
    assert fault.startswith("minimind/charts/charts.py:")
    assert fault.endswith(f"minimind.charts.charts imports {HIGH}: report is above charts")


@pytest.mark.parametrize(
    "text",
    [f'"""As {HIGH} does."""\n', f"if TYPE_CHECKING:\n    from {HIGH} import Page\n"],
)
def test_prose_and_types_are_no_imports(text: str, tmp_path: Path) -> None:
    assert planted(tmp_path, "minimind/charts/charts.py", text) == []


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        (
            "minimind/report/page.py",
            "import launcher.slurm.client\n",
            "minimind does not know the launcher",
        ),
        ("launcher/slurm/client.py", "import torch\n", "a login node has no torch"),
        ("minimind/system/text.py", "import numpy\n", "a login node has no numpy"),
        (
            "launcher/slurm/client.py",
            "from minimind.report import page\n",
            "not of what the launcher takes of minimind",
        ),
        ("launcher/slurm/client.py", "import launcher.task\n", "an entry point's older name"),
        ("minimind/report/page.py", "import tests.runs\n", "minimind does not import tests"),
    ],
)
def test_what_a_package_must_not_know_is_found(
    file: str, text: str, reason: str, tmp_path: Path
) -> None:
    (fault,) = planted(tmp_path, file, text)
    assert reason in fault


def test_a_file_in_no_layer_is_found(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"minimind\.attic\.old is in no layer"):
        planted(tmp_path, "minimind/attic/old.py", f"import {HIGH}\n")
