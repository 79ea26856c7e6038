"""The options that several commands share: one name, type, help text and panel for each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

WHERE, SIZE, IMAGE, RUN = "Where", "Size", "Container", "Run"


def option(help: str, panel: str, *names: str) -> Any:
    """A Typer option that is optional: None means "not given", so that a profile can decide."""
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False)


TrainFlags = Annotated[
    list[str] | None, typer.Argument(metavar="-- TRAIN FLAGS", help="Flags of the training.")
]
Name = Annotated[str | None, option("Name of the run, and of its folder.", RUN)]
Cluster = Annotated[str | None, option("auto, slurm or local (auto: Slurm if here).", WHERE)]
Nodes = Annotated[int | None, option("Number of nodes (1).", SIZE)]
Gpus = Annotated[int | None, option("GPUs a node, one rank each (1).", SIZE)]
Partition = Annotated[str | None, option("Slurm partition.", WHERE)]
Account = Annotated[str | None, option("Slurm account.", WHERE)]
Qos = Annotated[str | None, option("Slurm quality of service.", WHERE)]
Time = Annotated[str | None, option("Limit of one attempt: minutes or H:MM:SS.", SIZE)]
Mem = Annotated[str | None, option("Memory a node, e.g. 64G.", SIZE)]
CpusPerGpu = Annotated[int | None, option("CPUs for each rank.", SIZE)]
Constraint = Annotated[str | None, option("Node features.", WHERE)]
Exclude = Annotated[str | None, option("Nodes to avoid.", WHERE)]
Reservation = Annotated[str | None, option("Slurm reservation.", WHERE)]
Image = Annotated[str | None, option("Container image: reference or file.", IMAGE)]
Container = Annotated[
    str | None, option("auto, none, pyxis, enroot, apptainer, docker, podman, charliecloud.", IMAGE)
]
MountOption = Annotated[list[str] | None, option("SRC:DST[:ro]; may be repeated.", IMAGE)]
Env = Annotated[list[str] | None, option("NAME=VALUE for the ranks; repeatable.", RUN)]
SecretEnv = Annotated[
    list[str] | None, option("NAME of a variable that goes to the ranks unseen; repeatable.", RUN)
]
Profile = Annotated[Path | None, option("Site defaults in TOML; flags win.", WHERE)]
RunsDir = Annotated[str | None, option("Folder of all runs (./runs).", RUN)]
Python = Annotated[str | None, option("Python of the ranks.", IMAGE)]
Module = Annotated[str | None, option("What each rank runs (minimind.train_pretrain).", RUN)]
MaxRestarts = Annotated[int | None, option("Crashes and hangs forgiven (3).", RUN)]
HangTimeout = Annotated[int | None, option("Seconds without a step: restart (1800).", RUN)]
Resume = Annotated[bool, option("Continue the run of this name.", RUN)]
DryRun = Annotated[bool, option("Print the batch script, submit nothing.", RUN)]
Wait = Annotated[bool, option("Follow to the end; return its exit status.", RUN)]
AsJson = Annotated[bool, option("Print JSON.", RUN, "--json")]
