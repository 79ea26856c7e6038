from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from tools.trace_path import Landmark, Way, print_way, traced

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="older Pythons do not say which class a function is of"
)

TREE = {
    "__init__.py": "",
    "top.py": """
        import subprocess, sys, threading
        from house import leaf, middle, outside

        def main():
            leaf.called_and_gone()
            thread = threading.Thread(target=middle.walk)
            thread.start()
            thread.join()
            outside.start()
            code = "import sys; sys.path[:] = sys.argv[1:]; from house.inner import serve; serve()"
            subprocess.run([sys.executable, "-I", "-c", code, *sys.path], check=True)
    """,
    "leaf.py": "def called_and_gone(): pass",
    "middle.py": "from house import deep\ndef walk(): deep.Place().reached()",
    "deep.py": "class Place:\n    def reached(self): pass",
    "outside.py": """
        import subprocess, sys

        def start():
            subprocess.run([sys.executable, "-m", "house.rank"], check=True)
    """,
    "rank.py": "from house import deep\ndeep.Place().reached()\ndef end(): pass\nend()",
    "inner.py": "def serve(): pass",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "house").mkdir()
    for name, text in TREE.items():
        (tmp_path / "house" / name).write_text(textwrap.dedent(text))
    return tmp_path


def walk(tree: Path, *functions: str) -> Way:
    command = [sys.executable, "-c", "from house.top import main; main()"]
    landmarks = [Landmark(f"at {function}", (function, "old.name")) for function in functions]
    return traced(command, landmarks, tree, ["house"])


def test_a_way_is_what_lies_on_the_call_stacks_of_every_process(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    way = walk(tree, "outside.start", "deep.Place.reached", "rank.end", "inner.serve")
    assert [stack for _, stack in way.stacks] == [
        ["house/top.py", "house/outside.py"],
        ["house/middle.py", "house/deep.py"],  # where it was reached first
        ["house/rank.py", "house/rank.py"],
        ["house/inner.py"],
    ]
    assert len(way.files) == 6
    assert way.ran == {f"house/{name}" for name in TREE if name != "__init__.py"}
    print_way("a → b", way)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "a → b: 6 files on the way, 7 in which anything ran",
        "  at outside.start",
        "    house/top.py",
    ]


def test_a_landmark_that_is_not_reached_is_named(tree: Path) -> None:
    with pytest.raises(SystemExit, match=r"did not come past leaf\.moved or old\.name"):
        walk(tree, "leaf.moved")


def test_a_run_that_fails_says_why(tree: Path) -> None:
    (tree / "house" / "leaf.py").write_text("def called_and_gone(): raise OSError('broken')")
    with pytest.raises(SystemExit, match="broken"):
        walk(tree, "outside.start")
