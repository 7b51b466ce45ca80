"""`salattack evaluate`: Table I on a sample of any size."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from . import options


def evaluate_sample(
    faces: Annotated[str, typer.Argument(help=options.FACES)],
    profile: Annotated[options.Profile, typer.Option(help=options.PROFILE)] = "demo",
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
    generator: options.GeneratorName = options.GENERATOR,
    generator_weights: options.Weights = None,
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
    device: options.Device = "auto",
    seed: Annotated[int, typer.Option(help="Seed of starting noise, sample and intervals.")] = 0,
    ledger: Annotated[
        Path | None,
        typer.Option(help="File that keeps measurements.  [default: OUTPUT/ledger.sqlite]"),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder of the tables.")] = Path("results"),
    engine: options.EngineName = "local",
    workers: options.Workers = None,
) -> None:
    """Measure Table I on a sample of any size. A run that was stopped resumes."""
    from ..experiments import evaluation, samples
    from ..experiments.ledger import Ledger
    from ..experiments.study import open_study
    from ..reporting.tables import save_tables
    from ..runtime.files import sha256, write_json
    from ..workflow.manifest import provenance

    options.check_workers(workers, engine)
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
    write_json(output / "run.json", run)
    typer.echo((output / "table_1_damage.md").read_text())
    measured = f"{rows['place'].nunique()} of {len(study.faces)} images"
    typer.echo(f"{measured}; ledger {ledger}; tables in {output}/")
    options.end_unread(kept.failures(study.faces.sources))
