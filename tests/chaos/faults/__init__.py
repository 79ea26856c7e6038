"""What can happen to a run: one small function each, in a module for each kind of fault.

A function gets the run and random numbers of its own, and brings its fault about at a moment
that it draws. It may return a word or two on what it did, for the report, or whole entries where
it strikes more than once. The decorator says in which layers it applies, how an attempt may end
because of it, and whether one does end.
"""

from tests.chaos.faults import (
    cluster,
    containers,
    files,
    launched,
    long_work,
    network_files,
    parents,
    signals,
    starts,
)
from tests.chaos.faults.registry import Fault, applicable

__all__ = [
    "Fault",
    "applicable",
    "cluster",
    "containers",
    "files",
    "launched",
    "long_work",
    "network_files",
    "parents",
    "signals",
    "starts",
]
