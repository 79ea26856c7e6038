"""Run transformers' own common model tests on MiniMind, dense and MoE.

    python tests/hf_common/run.py [pytest arguments]

The tests come from the source distribution of the installed transformers version, fetched by pip
into ``.cache`` beside this file and never committed. That distribution holds
``tests/test_modeling_common.py`` and ``tests/test_configuration_common.py``, but not the modules
that they import from sub-folders (``generation``, ``exporters``, ``utils``): ``stubs`` stands in
for those. Tests that cannot hold for MiniMind are listed with reasons in ``deselected.txt``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import transformers

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
CACHE = HERE / ".cache" / transformers.__version__
UPSTREAM_FILES = ("test_modeling_common.py", "test_configuration_common.py")
TEST_REQUIREMENTS = ("parameterized==0.9.0",)


def pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *arguments], check=True)


def prepare_upstream_tests() -> None:
    """Lay out ``CACHE/hf_tests`` (upstream files and stubs) and ``CACHE/site`` (requirements)."""
    package = CACHE / "hf_tests"
    if not package.exists():
        release = f"transformers=={transformers.__version__}"
        download = CACHE / "sdist"
        pip("download", "--no-deps", "--no-binary", "transformers", "-d", str(download), release)
        pip("install", "--target", str(CACHE / "site"), *TEST_REQUIREMENTS)
        incomplete = CACHE / "hf_tests.tmp"
        shutil.rmtree(incomplete, ignore_errors=True)
        incomplete.mkdir()
        (archive,) = download.glob("transformers-*.tar.gz")
        with tarfile.open(archive) as source:
            for name in UPSTREAM_FILES:
                member = source.extractfile(f"{archive.name.removesuffix('.tar.gz')}/tests/{name}")
                if member is None:
                    raise SystemExit(f"{archive.name} holds no tests/{name}")
                (incomplete / name).write_bytes(member.read())
        incomplete.rename(package)
    shutil.copytree(HERE / "stubs", package, dirs_exist_ok=True)


def deselected() -> list[str]:
    """pytest arguments from ``deselected.txt``: ``Class::test`` and a reason on each line."""
    lines = (HERE / "deselected.txt").read_text(encoding="utf-8").splitlines()
    tests = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    for entry in tests:
        if len(entry) != 2:
            raise SystemExit(f"deselected.txt: {entry[0]} has no reason")
    return [f"--deselect=tests/hf_common/minimind_common.py::{test}" for test, _ in tests]


def main() -> int:
    prepare_upstream_tests()
    environment = dict(os.environ, HF_HUB_OFFLINE="1")
    paths = (REPOSITORY, CACHE, CACHE / "site")
    environment["PYTHONPATH"] = os.pathsep.join(map(str, paths))
    command = [sys.executable, "-m", "pytest", "-c", str(HERE / "pytest.ini")]
    command += ["--rootdir", str(REPOSITORY), str(HERE / "minimind_common.py")]
    command += [*deselected(), *sys.argv[1:]]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
