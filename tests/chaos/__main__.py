"""``python -m tests.chaos --seed 1 --minutes 10``: interfere with runs until the time is up."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from tests.chaos import docker, local, nfs, plain, procs, slurm
from tests.chaos.driver import Driver
from tests.chaos.report import table
from tests.chaos.target import ASKED_FOR, VARIANTS

LAYERS = {
    "plain": plain.layer,
    "procs": procs.layer,
    "nfs": nfs.layer,
    "local": local.layer,
    "slurm": slurm.layer,
    "docker": docker.layer,
}
HERE = ["plain", "local"]
"""What runs without --layer: the layers that need nothing installed."""


def main() -> int:
    """Run cases in turn over the layers; 1 when the judge found a loss."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--layer", action="append", choices=list(LAYERS), help=f"({HERE})")
    parser.add_argument("--case", type=int, default=None, help="this one case alone")
    parser.add_argument("--only", action="append", metavar="FAULT", help="this kind; repeatable")
    parser.add_argument("--variant", choices=[*VARIANTS, *ASKED_FOR], default="", help="(drawn)")
    parser.add_argument("--faults", type=int, default=0, metavar="N", help="so many in each case")
    parser.add_argument("--each", type=int, default=0, metavar="N", help="N of each of --only")
    parser.add_argument("--keep", type=Path, help="keep undisturbed runs here, and use those there")
    parser.add_argument("--keep-going", action="store_true", help="go on after a loss")
    parser.add_argument("--report", type=Path, help="append one line of JSON a layer to this file")
    parser.add_argument("--table", type=Path, nargs="+", help="sum such files up, and run nothing")
    options = parser.parse_args()
    if options.table:
        print(table(options.table))
        return 0
    # Started by nohup it would hand down that a hangup is ignored, which runs then heed.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # Whoever ends the driver early leaves no mount and no process behind.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    # Not below a long path: a socket's has 107 characters at most.
    folder = Path(tempfile.mkdtemp(prefix="minimind-chaos-")).resolve()
    folder.chmod(0o755)
    end = time.monotonic() + options.minutes * 60
    drivers: list[Driver] = []
    with ExitStack() as stack:
        stack.callback(lambda: tell(drivers, options.report))
        for name in options.layer or HERE:
            layer = stack.enter_context(LAYERS[name](folder / name))
            only, variant = options.only or (), options.variant
            drivers.append(
                Driver(
                    layer,
                    folder,
                    options.seed,
                    only=only,
                    variant=variant,
                    faults=options.faults,
                    each=options.each,
                    keep=options.keep,
                )
            )
        whole, number = True, options.case or 0
        while time.monotonic() < end and (whole or options.keep_going):
            for driver in drivers:
                whole = driver.case(number) and whole
            if options.case is not None:
                break
            number += 1
    if whole:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if whole else 1


def tell(drivers: list[Driver], file: Path | None) -> None:
    """Print what has been done, and append it to a file."""
    for driver in drivers:
        print(driver.report.to_json(), flush=True)
        if file is not None:
            with file.open("a") as report:
                report.write(driver.report.to_json() + "\n")


if __name__ == "__main__":
    sys.exit(main())
