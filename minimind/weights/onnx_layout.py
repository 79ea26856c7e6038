"""Where an exported folder has its ONNX graphs: as Optimum lays it out."""

from __future__ import annotations

from pathlib import Path

GRAPH = "onnx/model.onnx"
"""The graph with the weights as they were trained; quantised ones are beside it."""

_EARLIER = "model.onnx"
"""Where earlier exports had it, which are still read."""


def graph_of(folder: Path) -> Path | None:
    """The ONNX graph of an exported folder; None where it has none."""
    return next(filter(Path.is_file, (folder / GRAPH, folder / _EARLIER)), None)


def folder_of(path: Path) -> Path:
    """Where what belongs to weights is: their folder, or that in which a graph was exported."""
    if path.suffix != ".onnx":
        return path
    apart = path.parent.name == "onnx" and not (path.parent / "config.json").is_file()
    return path.parent.parent if apart else path.parent
