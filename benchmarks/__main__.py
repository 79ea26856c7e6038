"""A short whole of all benchmarks: ``python -m benchmarks [--upstream DIR] [--out FILE.md]``.

About fifteen minutes on two cores. Small sizes and few repeats: it shows that everything runs
here and roughly where things stand. For figures to quote run one benchmark by its name with
its defaults.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.common import BenchmarkError, environment, run_process, say

SHORT: dict[str, str] = {
    "peak": "--seconds 0.5",
    "throughput": "--sizes 256x4 --seconds 15 --warmup 5 --repeats 2",
    "ablation": "--sizes 256x4 --seconds 10 --warmup 5 --repeats 1",
    "startup": "--sizes 256x4 --rows 200000 --repeats 2",
    "checkpoint": "--sizes 256x4 --stop_size 256x4 --steps 60 --save_every 12 --repeats 1",
    "plan": "--sizes 256x4 --steps 5 --repeats 1",
    "data": "--speed_mb 20 --big_gb 0.1 --seconds 15 --repeats 1",
    "ddp": "--seconds 10 --warmup 5 --repeats 1",
    "learning": "--seeds 1 --upstream_epochs 1 --upstream_batch_size 8 "
    "--upstream_accumulation_steps 1 --upstream_interval 100 --points 4",
}
WITH_UPSTREAM = ("throughput", "learning")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--upstream", default="", metavar="DIR", help="a clone of MiniMind")
    parser.add_argument("--out", default="", metavar="FILE.md", help="also write them all there")
    args = parser.parse_args()
    failed = []
    for name, words in SHORT.items():
        command = [sys.executable, "-m", f"benchmarks.{name}", *words.split()]
        if name in WITH_UPSTREAM and args.upstream:
            command += ["--upstream", args.upstream]
        elif name == "learning":
            command += ["--tokens", "200000"]
        if args.out:
            command += ["--out", args.out]
        say(f"benchmark {name}")
        try:
            output, seconds = run_process(command, env=environment(), quiet=False)
        except BenchmarkError as error:
            print(f"## {name}\n\nfailed: {error}\n", flush=True)
            failed.append(name)
            continue
        print(f"## {name}\n\n{output}", flush=True)
        say(f"benchmark {name} took {seconds:.0f} s")
    if failed:
        say(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
