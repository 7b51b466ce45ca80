"""Options that several commands share, and how a command ends that left something out."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Option

from ..errors import SalattackError

if TYPE_CHECKING:
    import pandas as pd

PARTLY_DONE = 3  # exit code when some of several pictures could not be read or protected
FACES = '"openpeople" (shipped), CelebA\'s folder, or a folder of photos.'
PROFILE = "Sample: 20, 100, 500, 1000 or 2000 faces, or all."
Profile = Literal["demo", "tiny", "small", "middle", "large", "all"]
GENERATOR = "stargan-celeba128-w32"
GeneratorName = Annotated[
    str, Option(help="Generator whose edits are to break; a wrong name lists all known.")
]
Weights = Annotated[str | None, Option(help="Weights file of the generator.")]
Device = Annotated[str, Option(help="auto, cpu, cuda, cuda:1 or mps.")]
EngineName = Annotated[Literal["local", "ray"], Option(help="This process, or a Ray cluster.")]
Workers = Annotated[int | None, Option(help="Number of processes, with --engine ray.")]
Notebooks = Annotated[Path, Option(help="Folder of the notebooks.")]
Executed = Annotated[Path, Option(help="Folder of the executed notebooks.")]
EXECUTED = Path("results/notebooks")
Parameters = Annotated[
    list[str] | None,
    Option("--parameter", "-p", metavar="NAME=VALUE", help="Notebook parameter; may be repeated."),
]


def check_workers(workers: int | None, engine: str) -> None:
    """Refuse a number of workers where there are none."""
    if workers is not None and engine == "local":
        raise SalattackError("--workers goes with --engine ray; pass both or neither")


def end_with(failures: Sequence[str], problem: str) -> None:
    """List what failed, if anything did, and end with `PARTLY_DONE`."""
    if failures:
        lines = (f"salattack: {len(failures)} {problem}:", *failures)
        typer.echo("\n  ".join(lines), err=True)
        raise typer.Exit(PARTLY_DONE)


def end_unread(failures: "pd.DataFrame") -> None:
    """End so for images that could not be read, see `Ledger.failures`."""
    lines = [f"{row.face_id}: {row.failure}" for row in failures.itertuples()]
    end_with(lines, "images could not be read")
