"""The command line: a user's mistake ends it with one line and no traceback."""

import ast
import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from .. import __version__
from ..errors import SalattackError
from ..runtime.device import keep_freed_memory
from . import options
from .assets import assets_app
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
        name, equals, value = pair.partition("=")
        if not equals:
            raise SalattackError(f"a parameter is NAME=VALUE, got {pair!r}")
        with suppress(ValueError, SyntaxError):
            value = ast.literal_eval(value)
        # Notebooks run in their own folder; the user's paths are relative to the current one.
        if isinstance(value, str) and (os.sep in value or Path(value).exists()):
            value = str(Path(value).resolve())
        chosen[name] = value
    return chosen


@app.command("reproduce")
def reproduce_all(
    profile: Annotated[
        options.Profile | None, Option(help=options.PROFILE + "  [default: demo]")
    ] = None,
    faces: Annotated[str | None, Option(help=options.FACES + "  [default: openpeople]")] = None,
    jobs: Annotated[
        int | None,
        Option(min=1, help="Notebooks to run at once.  [default: one per core; one with a GPU]"),
    ] = None,
    parameter: options.Parameters = None,
    output: Annotated[
        Path | None, Option(help="Folder of figures and tables.  [default: results]")
    ] = None,
    notebooks: options.Notebooks = Path("notebooks"),
    executed: options.Executed = options.EXECUTED,
) -> None:
    """Run all experiments and write a report. An interrupted run resumes."""
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
    report: Annotated[Path | None, Option(help="Folder for an HTML report.")] = None,
    executed: options.Executed = options.EXECUTED,
) -> None:
    """Judge the paper's claims by a run's tables. The exit code does not depend on the verdicts."""
    from ..experiments.claims import UNTESTED, verify
    from ..experiments.samples import premises
    from ..reporting.page import claims_text, write_report

    claims = verify(folder)
    typer.echo(claims_text(claims, premises(folder)))
    if report is not None:
        page = write_report(claims, folder, sorted(executed.glob("*.ipynb")), report)
        typer.echo(f"Report: {page}")
    if (claims["verdict"] == UNTESTED).all():
        raise SalattackError("this run has nothing to judge: none of the paper's attackers")


@app.command("compare")
def compare_runs(
    run: Annotated[Path, Argument(help="Folder of a run's tables and pictures.")],
    reference: Annotated[Path, Argument(help="Folder of the expected ones.")] = Path("figures"),
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


@app.command("evaluate")
def evaluate_sample(
    faces: Annotated[str, Argument(help=options.FACES)],
    profile: Annotated[options.Profile, Option(help=options.PROFILE)] = "demo",
    split: Annotated[
        str | None, Option(help='Part of CelebA (stargan, train, valid, test, all), or "shuffled".')
    ] = None,
    attacker: Annotated[
        list[str] | None,
        Option(help="Attacker, e.g. saliency-aware; may be repeated.  [default: Table I's]"),
    ] = None,
    targets: Annotated[
        str, Option(help="Edits to attack: rotate (one per face), all, joint, or a name.")
    ] = "rotate",
    bound: Annotated[float, Option(help="L-infinity bound, for pixels in [-1, 1].")] = 0.05,
    step_size: Annotated[float, Option(help="Step, for pixels in [-1, 1].")] = 0.01,
    steps: Annotated[int, Option(help="Number of steps.")] = 10,
    generator: options.GeneratorName = options.GENERATOR,
    generator_weights: options.Weights = None,
    saliency: Annotated[str, Option(help="Saliency model; a wrong name lists all.")] = "pfan-light",
    saliency_weights: Annotated[str | None, Option(help="Weights file of that model.")] = None,
    unit: Annotated[
        Literal["[0, 1]", "[-1, 1]"], Option(help="Range of pixels for photo errors.")
    ] = "[0, 1]",
    compute: Annotated[
        Literal["float32", "bfloat16"], Option(help="Arithmetic inside the attack.")
    ] = "float32",
    batch_size: Annotated[int, Option(help="Faces that are attacked together.")] = 10,
    device: options.Device = "auto",
    seed: Annotated[int, Option(help="Seed of starting noise, sample and intervals.")] = 0,
    ledger: Annotated[
        Path | None, Option(help="File that keeps measurements.  [default: OUTPUT/ledger.sqlite]")
    ] = None,
    output: Annotated[Path, Option(help="Folder of the tables.")] = Path("results"),
    engine: options.EngineName = "local",
    workers: options.Workers = None,
) -> None:
    """Measure Table I on a sample of any size. An interrupted run resumes."""
    from ..experiments import evaluation, samples
    from ..experiments.ledger import Ledger
    from ..experiments.study import open_study
    from ..reporting.tables import save_tables
    from ..runtime.files import sha256, write_json
    from ..workflow.manifest import provenance

    options.check_workers(workers, engine)
    strength = {"bound": bound, "step_size": step_size, "steps": steps}
    sample = {"faces": faces, "split": split, "seed": seed}
    models = {"generator": generator, "generator_weights": generator_weights, "device": device}
    models |= {"saliency": saliency, "saliency_weights": saliency_weights, "compute": compute}
    n_images = evaluation.sample_size(profile)
    opened = partial(open_study, **sample, **models, n_images=n_images)
    ledger = ledger or output / "ledger.sqlite"
    study, kept = opened(), Ledger(ledger)
    attacks = evaluation.attackers(attacker, **strength, seed=seed)
    on_ray = partial(evaluation.measure_on_ray, open_study=opened, workers=workers)
    how = {"targets": targets, "batch_size": batch_size}
    chosen = on_ray if engine == "ray" else None
    rows = evaluation.evaluate(study, attacks, **how, ledger=kept, engine=chosen)
    save_tables(rows, output, len(study.faces), unit=unit, seed=seed)
    run = provenance() | {
        "parameters": strength,
        "sample": sample | {"profile": profile},
        "settings": evaluation.settings(study, attacks, **how),
        "faces": study.faces.ids,
        "outputs": {samples.TABLE_1: sha256(output / samples.TABLE_1)},
    }
    write_json(output / "run.json", run)
    typer.echo((output / "table_1_damage.md").read_text())
    measured = f"{rows['place'].nunique()} of {len(study.faces)} images"
    typer.echo(f"{measured}; ledger {ledger}; tables in {output}/")
    options.end_unread(kept.failures(study.faces.sources))


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
