"""`salattack evaluate`: Table I on a sample of any size."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from . import options


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
    """Measure Table I on a sample of any size. A run that was stopped resumes."""
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
        "outputs": {samples.TABLE: sha256(output / samples.TABLE)},
    }
    write_json(output / "run.json", run)
    typer.echo((output / "table_1_damage.md").read_text())
    measured = f"{rows['place'].nunique()} of {len(study.faces)} images"
    typer.echo(f"{measured}; ledger {ledger}; tables in {output}/")
    options.end_unread(kept.failures(study.faces.sources))
