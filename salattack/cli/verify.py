"""`salattack verify`: the paper's claims against a run's table."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import SalattackError


def verify(
    folder: Annotated[Path, typer.Argument(help="Of a run's table_1_samples.csv.")] = Path(
        "figures"
    ),
    report: Annotated[
        Path | None, typer.Option(help="Write the static report to this folder too.")
    ] = None,
    executed: Annotated[
        Path, typer.Option(help="Folder of the executed notebooks, for the report.")
    ] = Path("results/notebooks"),
) -> None:
    """State claim by claim what a run reproduces of the paper; it judges, and does not fail."""
    from ..experiments.claims import UNTESTED
    from ..experiments.claims import verify as judge
    from ..experiments.samples import premises
    from ..reporting.page import as_text, write_report

    claims = judge(folder)
    typer.echo(as_text(claims, premises(folder)))
    if report is not None:
        page = write_report(claims, folder, sorted(executed.glob("*.ipynb")), report)
        typer.echo(f"Report: {page}")
    if (claims["verdict"] == UNTESTED).all():
        raise SalattackError("this run has nothing to judge: none of the paper's attackers")
