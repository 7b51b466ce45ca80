"""The command line: one clear line for what a user can mend, and no traceback."""

import ast
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from . import __version__
from .errors import SalattackError

app = typer.Typer(
    help=__doc__,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Notebooks = Annotated[Path, typer.Option(help="Folder of the notebooks.")]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="A notebook parameter."),
]


def _parameters(pairs: list[str] | None) -> dict:
    chosen = {}
    for pair in pairs or []:
        name, equals, text = pair.partition("=")
        if not equals:
            raise SalattackError(f"a parameter is NAME=VALUE, got {pair!r}")
        try:
            chosen[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            chosen[name] = text
    # Notebooks run in their own folder, paths are meant from here.
    for name in ("faces", "generator_weights", "saliency_weights", "output"):
        if isinstance(value := chosen.get(name), str) and (os.sep in value or Path(value).exists()):
            chosen[name] = str(Path(value).resolve())
    return chosen


@app.command()
def reproduce(
    parameter: Parameters = None,
    output: Annotated[Path | None, typer.Option(help="Figures and table go here.")] = None,
    notebooks: Notebooks = Path("notebooks"),
    executed: Annotated[Path, typer.Option(help="Executed notebooks go here.")] = Path(
        "results/notebooks"
    ),
) -> None:
    """Regenerate every figure and the table, into figures/; into results/ with parameters."""
    from .reproduce import reproduce as run

    settings = _parameters(parameter)
    place = output or Path("results" if settings else "figures")
    table = run(notebooks, place, executed, settings)
    typer.echo(table.read_text())
    typer.echo(f"Figures, table and manifest: {place}/; executed notebooks: {executed}/")


@app.command()
def run(
    notebook: Annotated[str, typer.Argument(help="Name, e.g. attack_comparison.")],
    parameter: Parameters = None,
    output: Annotated[Path | None, typer.Option("--output", "-o")] = None,
    notebooks: Notebooks = Path("notebooks"),
) -> None:
    """Execute one notebook by papermill, as it stands or with other parameters."""
    from .reproduce import find_notebook, run_notebook

    source = find_notebook(notebook, notebooks)
    target = output or Path("results/notebooks") / source.name
    run_notebook(source, target, _parameters(parameter))
    typer.echo(f"Executed: {target}")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    """Run the command line; a user's mistake ends it with one line and exit code 1."""
    try:
        app()
    except SalattackError as error:
        print(f"salattack: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
