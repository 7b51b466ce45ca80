"""The command line: a user's mistake ends it with one line and no traceback."""

import ast
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from .. import __version__
from ..errors import SalattackError
from ..runtime.device import keep_freed_memory
from . import options
from .assets import assets_app
from .evaluate import evaluate_sample
from .protect import protect

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"salattack {__version__}")
        raise typer.Exit


@app.callback()
def _salattack(
    version: Annotated[
        bool, Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Reproduce 'Defending Deepfakes by Saliency-Aware Attack' (Li et al., 2023): run its
    experiments, check its claims, protect photos.
    """  # noqa: D205


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
    # Notebooks run in their own folder; the user's paths are relative to the current one.
    for name, value in chosen.items():
        if isinstance(value, str) and (os.sep in value or Path(value).exists()):
            chosen[name] = str(Path(value).resolve())
    return chosen


@app.command("reproduce")
def reproduce_all(
    profile: Annotated[
        options.Profile | None, Option(help=options.PROFILE + "  [default: demo]")
    ] = None,
    faces: Annotated[str | None, Option(help=options.FACES + "  [default: openpeople]")] = None,
    jobs: Annotated[
        int | None,
        Option(min=1, help="Notebooks to run at once.  [default: one per core; with a GPU one]"),
    ] = None,
    parameter: options.Parameters = None,
    output: Annotated[
        Path | None, Option(help="Of figures and tables.  [default: results]")
    ] = None,
    notebooks: options.Notebooks = Path("notebooks"),
    executed: options.Executed = options.EXECUTED,
) -> None:
    """Run all experiments and write a report. A run that was stopped resumes."""
    from ..experiments.ledger import Ledger
    from ..workflow.reproduce import reproduce, share_machine

    named = {"profile": profile, "faces": faces}
    settings = _parameters([*(f"{k}={v}" for k, v in named.items() if v), *(parameter or [])])
    chosen = settings.pop("output", "results")
    place = output or Path(chosen)
    jobs = share_machine(jobs, settings.get("device", "auto"))
    typer.echo(reproduce(notebooks, place, executed, settings, jobs))
    typer.echo(f"Figures, tables and manifest: {place}/")
    options.end_unread(Ledger(settings.get("ledger") or place / "ledger.sqlite").failures())


@app.command("verify")
def verify_claims(
    folder: Annotated[Path, Argument(help="A run's folder, with its tables.")] = Path("figures"),
    report: Annotated[Path | None, Option(help="Folder for an HTML report too.")] = None,
    executed: options.Executed = options.EXECUTED,
) -> None:
    """Judge the paper's claims by a run's tables. A verdict never changes the exit code."""
    from ..experiments.claims import UNTESTED, verify
    from ..experiments.samples import premises
    from ..reporting.page import as_text, write_report

    claims = verify(folder)
    typer.echo(as_text(claims, premises(folder)))
    if report is not None:
        page = write_report(claims, folder, sorted(executed.glob("*.ipynb")), report)
        typer.echo(f"Report: {page}")
    if (claims["verdict"] == UNTESTED).all():
        raise SalattackError("this run has nothing to judge: none of the paper's attackers")


@app.command("compare")
def compare_runs(
    run: Annotated[Path, Argument(help="Folder of a run's tables and pictures.")],
    reference: Annotated[Path, Argument(help="Folder of those expected.")] = Path("figures"),
) -> None:
    """Compare a run with a reference run. Exit code 1: an output is missing or differs."""
    from ..workflow.compare import as_lines, compare, other_settings

    result = compare(run, reference)
    if why := other_settings(run, reference):
        raise SalattackError(f"no comparison, because {why}")
    typer.echo(as_lines(result))
    raise typer.Exit(int(not result["agrees"].all()))


@app.command("run")
def run_one(
    notebook: Annotated[str, Argument(help="Name, e.g. attack_comparison.")],
    parameter: options.Parameters = None,
    output: Annotated[
        Path | None,
        Option("--output", "-o", help="Executed notebook.  [default: results/notebooks/]"),
    ] = None,
    notebooks: options.Notebooks = Path("notebooks"),
) -> None:
    """Run one notebook."""
    from ..workflow.notebooks import find_notebook, run_notebook

    source = find_notebook(notebook, notebooks)
    target = output or options.EXECUTED / source.name
    run_notebook(source, target, _parameters(parameter))
    typer.echo(f"Executed: {target}")


app.command("evaluate")(evaluate_sample)
app.command()(protect)
app.add_typer(assets_app, name="assets")


def main() -> None:
    """Run the command line; a user's mistake ends it with one line and exit code 1."""
    keep_freed_memory()
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # notebooks' kernels read it
    try:
        app()
    except SalattackError as error:
        print(f"salattack: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
