"""The command line: one clear line for what a user can mend, and no traceback."""

import ast
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import __version__
from ..errors import SalattackError, one_of
from ..runtime.device import keep_freed_memory
from .assets import app as assets_app
from .protect import protect
from .verify import verify

if TYPE_CHECKING:
    import pandas as pd


app = typer.Typer(
    help=__doc__,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


app.add_typer(assets_app, name="assets")


app.command()(protect)


app.command()(verify)


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
    # Notebooks run in their own folder; the user's paths are relative to the current one.
    for name, value in chosen.items():
        if isinstance(value, str) and (os.sep in value or Path(value).exists()):
            chosen[name] = str(Path(value).resolve())
    return chosen


@app.command()
def reproduce(
    parameter: Parameters = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of figures and tables.  [default: results]")
    ] = None,
    notebooks: Notebooks = Path("notebooks"),
    executed: Annotated[Path, typer.Option(help="Executed notebooks go here.")] = Path(
        "results/notebooks"
    ),
) -> None:
    """Regenerate every figure and table into results/, and compare them with figures/."""
    from ..workflow.reproduce import reproduce as run

    settings = _parameters(parameter)
    chosen = settings.pop("output", "results")
    place = output or Path(chosen)
    table = run(notebooks, place, executed, settings)
    typer.echo(table.read_text())
    typer.echo(f"Figures, table and manifest: {place}/; executed notebooks: {executed}/")
    if settings.get("profile"):
        from ..experiments.ledger import Ledger

        _report_failures(Ledger(settings.get("ledger", place / "ledger.sqlite")).failures())


@app.command()
def run(
    notebook: Annotated[str, typer.Argument(help="Name, e.g. attack_comparison.")],
    parameter: Parameters = None,
    output: Annotated[Path | None, typer.Option("--output", "-o")] = None,
    notebooks: Notebooks = Path("notebooks"),
) -> None:
    """Execute one notebook by papermill, as it stands or with other parameters."""
    from ..workflow.notebooks import find_notebook, run_notebook

    source = find_notebook(notebook, notebooks)
    target = output or Path("results/notebooks") / source.name
    run_notebook(source, target, _parameters(parameter))
    typer.echo(f"Executed: {target}")


@app.command()
def compare(
    run: Annotated[Path, typer.Argument(help="Folder of a run's tables and pictures.")],
    reference: Annotated[Path, typer.Argument(help="Folder of those expected.")] = Path("figures"),
) -> None:
    """Compare a run with another; exit code 1 if an output is missing or differs too much."""
    from ..workflow.compare import as_text, other_settings
    from ..workflow.compare import compare as compared

    result = compared(run, reference)
    if why := other_settings(run, reference):
        raise SalattackError(f"no comparison, because {why}")
    typer.echo(as_text(result))
    raise typer.Exit(int(not result["agrees"].all()))


@app.command()
def evaluate(
    faces: Annotated[
        str, typer.Argument(help="openpeople, CelebA's folder, or a folder of photos.")
    ],
    profile: Annotated[str, typer.Option(help="demo, tiny, small, middle, large or all.")] = "demo",
    split: Annotated[str | None, typer.Option(help="Of CelebA or a folder of photos.")] = None,
    attacker: Annotated[list[str] | None, typer.Option(help="Table I's when left out.")] = None,
    targets: Annotated[str, typer.Option(help="rotate, all, or one attribute.")] = "rotate",
    bound: Annotated[float, typer.Option(help="L-infinity, in [-1, 1].")] = 0.05,
    step_size: Annotated[float, typer.Option(help="In [-1, 1].")] = 0.01,
    steps: Annotated[int, typer.Option(help="Iterations.")] = 10,
    generator: Annotated[str, typer.Option(help="A name.")] = "stargan-celeba128-w32",
    generator_weights: Annotated[str | None, typer.Option(help="Another weights file.")] = None,
    saliency: Annotated[str, typer.Option(help="A name.")] = "pfan-light",
    saliency_weights: Annotated[str | None, typer.Option(help="Another weights file.")] = None,
    unit: Annotated[str, typer.Option(help="Range of photo errors.")] = "[0, 1]",
    compute: Annotated[str, typer.Option(help="float32 or bfloat16 in the attack.")] = "float32",
    batch_size: Annotated[int, typer.Option(help="Faces at a time.")] = 10,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda …")] = "auto",
    seed: Annotated[int, typer.Option(help="Of starts, sample and intervals.")] = 0,
    ledger: Annotated[
        Path | None,
        typer.Option(help="Keeps what is measured; OUTPUT/ledger.sqlite when left out."),
    ] = None,
    output: Annotated[Path, typer.Option(help="The tables go here.")] = Path("results"),
    engine: Annotated[str, typer.Option(help="local, or ray: a cluster.")] = "local",
    workers: Annotated[int | None, typer.Option(help="With ray: how many processes.")] = None,
) -> None:
    """Measure Table I on a sample of any size; interrupt it and start it again as you like."""
    from ..experiments import evaluation, samples
    from ..experiments import evaluation as cluster
    from ..experiments import table_1 as tables
    from ..experiments.ledger import Ledger
    from ..experiments.study import open_study
    from ..runtime.files import sha256, written_whole
    from ..workflow.manifest import provenance

    if engine not in ("local", "ray"):
        raise one_of("engine", engine, ("local", "ray"))
    opened = partial(
        open_study,
        faces=faces,
        n_images=evaluation.sample_size(profile),
        split=split,
        generator=generator,
        generator_weights=generator_weights,
        saliency=saliency,
        saliency_weights=saliency_weights,
        device=device,
        compute=compute,
        seed=seed,
    )
    ledger = output / "ledger.sqlite" if ledger is None else ledger
    study, kept = opened(), Ledger(ledger)
    attacks = evaluation.attackers(attacker, bound, step_size, steps, seed)
    rows = evaluation.evaluate(
        study,
        attacks,
        targets=targets,
        batch_size=batch_size,
        ledger=kept,
        engine=partial(cluster.measure_on_ray, open_study=opened, workers=workers)
        if engine == "ray"
        else None,
    )
    tables.save_tables(rows, output, len(study.faces), unit=unit, seed=seed)
    run = provenance() | {
        "parameters": {"bound": bound, "step_size": step_size, "steps": steps},
        "sample": {"faces": faces, "profile": profile, "split": split, "seed": seed},
        "settings": evaluation.settings(study, attacks, targets, batch_size),
        "faces": study.faces.ids,
        "outputs": {samples.TABLE: sha256(output / samples.TABLE)},
    }
    with written_whole(output / "run.json") as beside:
        beside.write_text(json.dumps(run, indent=2) + "\n")
    typer.echo((output / "table_1.md").read_text())
    typer.echo(
        f"{rows['place'].nunique()} of {len(study.faces)} images; ledger {ledger}, {output}/"
    )
    _report_failures(kept.failures(study.faces.sources))


def _report_failures(failures: "pd.DataFrame") -> None:
    """End with exit code 3 where images could not be read."""
    if failures.empty:
        return
    for face_id, reason in zip(failures["face_id"], failures["failure"], strict=True):
        print(f"left out: {face_id}: {reason}", file=sys.stderr)
    print(f"salattack: {len(failures)} images could not be read", file=sys.stderr)
    raise typer.Exit(3)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    """Run the command line; a user's mistake ends it with one line and exit code 1."""
    keep_freed_memory()
    try:
        app()
    except SalattackError as error:
        print(f"salattack: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
