"""``image import``: what a site's container runtime needs, made from an OCI image."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from launcher.cli.options import AsJson
from minimind.system.terminal import print_json


def import_(
    reference: Annotated[str, typer.Argument(help="Image, e.g. minimind:1.0.")],
    container: Annotated[
        str, typer.Option(help="pyxis, enroot, apptainer or charliecloud: who starts it.")
    ],
    out: Annotated[Path | None, typer.Option(help="File or folder to make.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a .sqsh, .sif or folder of an image, with its origin beside it."""
    from launcher.containers.image import import_image

    target, origin = import_image(reference, container, out)
    if as_json:
        print_json({"path": str(target), **asdict(origin)})
    else:
        print(f"{target} (digest {origin.digest or 'unknown'})")
        image = shlex.quote(str(target))
        print(f"Next: launcher submit --image {image} --container {container} -- FLAGS")


EXAMPLE = "Example: launcher image import minimind --container apptainer --out minimind.sif"
app = typer.Typer(
    help="Container images for the site's runtime.", no_args_is_help=True, epilog=EXAMPLE
)
app.command("import", epilog=EXAMPLE)(import_)
# One command alone would swallow its own name.
app.callback()(lambda: None)
