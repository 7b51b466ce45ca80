"""`salattack evaluate`: Table I on a sample of any size."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    import pandas as pd

BAD_IMAGES = 3  # exit code
Profile = Literal["demo", "tiny", "small", "middle", "large", "all"]
PROFILE = "Sample: 20, 100, 500, 1000 or 2000 faces, or all."
FACES = '"openpeople" (shipped), CelebA\'s folder, or a folder of photos.'


def evaluate(
    faces: Annotated[str, typer.Argument(help=FACES)],
    profile: Annotated[Profile, typer.Option(help=PROFILE)] = "demo",
    split: Annotated[
        str | None,
        typer.Option(help='Part of CelebA (stargan, train, valid, test, all), or "shuffled".'),
    ] = None,
    attacker: Annotated[
        list[str] | None,
        typer.Option(help="Attacker, e.g. saliency-aware; may be repeated.  [default: Table I's]"),
    ] = None,
    targets: Annotated[
        str, typer.Option(help="Edits to attack: rotate (one per face), all, joint, or a name.")
    ] = "rotate",
    bound: Annotated[float, typer.Option(help="L-infinity bound, for pixels in [-1, 1].")] = 0.05,
    step_size: Annotated[float, typer.Option(help="Step, for pixels in [-1, 1].")] = 0.01,
    steps: Annotated[int, typer.Option(help="Number of steps.")] = 10,
    generator: Annotated[
        str, typer.Option(help="Generator's name; a wrong name lists those known.")
    ] = "stargan-celeba128-w32",
    generator_weights: Annotated[
        str | None, typer.Option(help="Weights file of the generator.")
    ] = None,
    saliency: Annotated[
        str, typer.Option(help="Saliency model's name; a wrong name lists those known.")
    ] = "pfan-light",
    saliency_weights: Annotated[
        str | None, typer.Option(help="Weights file of the saliency model.")
    ] = None,
    unit: Annotated[
        Literal["[0, 1]", "[-1, 1]"], typer.Option(help="Range of pixels for photo errors.")
    ] = "[0, 1]",
    compute: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="Arithmetic inside the attack.")
    ] = "float32",
    batch_size: Annotated[int, typer.Option(help="Faces that are attacked together.")] = 10,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of starting noise, sample and intervals.")] = 0,
    ledger: Annotated[
        Path | None,
        typer.Option(help="File that keeps measurements.  [default: OUTPUT/ledger.sqlite]"),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder of the tables.")] = Path("results"),
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="This process, or a Ray cluster.")
    ] = "local",
    workers: Annotated[
        int | None, typer.Option(help="Number of processes, with --engine ray.")
    ] = None,
) -> None:
    """Measure Table I on a sample of any size. A run that was stopped resumes."""
    from ..experiments import evaluation, samples
    from ..experiments.ledger import Ledger
    from ..experiments.study import open_study
    from ..reporting.tables import save_tables
    from ..runtime.files import sha256, written_whole
    from ..workflow.manifest import provenance

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
    ledger = ledger or output / "ledger.sqlite"
    study, kept = opened(), Ledger(ledger)
    attacks = evaluation.attackers(attacker, bound, step_size, steps, seed)
    on_ray = partial(evaluation.measure_on_ray, open_study=opened, workers=workers)
    rows = evaluation.evaluate(
        study,
        attacks,
        targets=targets,
        batch_size=batch_size,
        ledger=kept,
        engine=on_ray if engine == "ray" else None,
    )
    save_tables(rows, output, len(study.faces), unit=unit, seed=seed)
    run = provenance() | {
        "parameters": {"bound": bound, "step_size": step_size, "steps": steps},
        "sample": {"faces": faces, "profile": profile, "split": split, "seed": seed},
        "settings": evaluation.settings(study, attacks, targets, batch_size),
        "faces": study.faces.ids,
        "outputs": {samples.TABLE: sha256(output / samples.TABLE)},
    }
    with written_whole(output / "run.json") as beside:
        beside.write_text(json.dumps(run, indent=2) + "\n")
    typer.echo((output / "table_1_damage.md").read_text())
    measured = f"{rows['place'].nunique()} of {len(study.faces)} images"
    typer.echo(f"{measured}; ledger {ledger}; tables in {output}/")
    report_failures(kept.failures(study.faces.sources))


def report_failures(failures: "pd.DataFrame") -> None:
    """End with exit code 3 if images could not be read."""
    if failures.empty:
        return
    for face_id, reason in zip(failures["face_id"], failures["failure"], strict=True):
        typer.echo(f"left out: {face_id}: {reason}", err=True)
    typer.echo(f"salattack: {len(failures)} images could not be read", err=True)
    raise typer.Exit(BAD_IMAGES)
