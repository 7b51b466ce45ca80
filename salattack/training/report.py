"""The shipped models against the bars that they were made for, measured anew.

Needs the data they were trained and tested on (see the model cards), laid out as
``stargan-celeba128-outputs/`` and ``saliency/ecssd_256.tar`` in one folder.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import typer

from ..errors import SalattackError
from ..generators import load_generator
from ..saliency import SALIENCY_MODELS, load_saliency
from ..study import mask_quality, open_study
from ..weights import SHIPPED, pick_device
from . import quality, saliency
from .grids import load_grids

CLASSIFIER_STEPS = 600


class Bar(NamedTuple):
    """A measure and what was asked of it.

    Attributes:
        model: the shipped model's name.
        measure: what was measured.
        value: the measurement.
        sense: "at most" or "at least".
        bar: what was asked.
    """

    model: str
    measure: str
    value: float
    sense: str
    bar: float

    @property
    def met(self) -> bool:
        """Whether the bar is met."""
        return self.value <= self.bar if self.sense == "at most" else self.value >= self.bar


def saliency_bars(data: Path) -> Iterator[Bar]:
    """Measure pfan-light: size, ECSSD (where pysodmetrics is installed), shipped faces, speed."""
    name = "pfan-light"
    model = load_saliency(name, device="cpu")
    file = SHIPPED / SALIENCY_MODELS[name].file
    yield Bar(
        name, "parameters (M)", sum(p.numel() for p in model.parameters()) / 1e6, "at most", 8
    )
    yield Bar(name, "file (MB)", file.stat().st_size / 1e6, "at most", 16)
    try:
        found = saliency.evaluate(model, data / "saliency" / "ecssd_256.tar")
    except ImportError:
        raise SalattackError("ECSSD's measures need `pip install 'salattack[train]'`") from None
    yield Bar(name, f"ECSSD MAE, {found['images']} images", found["mae"], "at most", 0.065)
    yield Bar(name, "ECSSD max-Fβ (mean precision, recall)", found["max_f"], "at least", 0.90)
    yield Bar(name, "ECSSD max-Fβ (mean F)", found["max_mean_f"], "at least", 0.90)
    study = open_study(device="cpu")
    quality, _, _ = mask_quality(study)
    faces = f"of {len(quality)} shipped faces"
    yield Bar(
        name, f"least saliency inside the face, {faces}", quality["inside"].min(), "at least", 0.9
    )
    yield Bar(name, f"most in the top corners, {faces}", quality["corners"].max(), "at most", 0.1)
    photos, _, _ = next(study.batches(16))
    model(photos)
    began = time.perf_counter()
    model(photos)
    each = 1000 * (time.perf_counter() - began) / len(photos)
    yield Bar(name, "ms per face, batch of 16", each, "at most", 60)


def generator_bars(data: Path) -> Iterator[Bar]:
    """Measure stargan-celeba128-w32 on the grids that are held out."""
    name = "stargan-celeba128-w32"
    place = pick_device()
    grids = load_grids(data / "stargan-celeba128-outputs")
    trained, held = (part.to(place) for part in grids.split())
    generator = load_generator(name)
    found = quality.evaluate(generator, held, bfloat16=True)
    faces = f"{len(held)} faces × 5 edits"
    yield Bar(
        name,
        f"error to the published output over identity's, {faces}",
        found["ratio"],
        "at most",
        0.55,
    )
    yield Bar(name, "SSIM to the published output", found["ssim"], "at least", 0.75)
    yield Bar(name, "PGD damage, MSE in [-1, 1]", found["damage"], "at least", 0.20)
    yield Bar(name, "share of outputs above 0.05", found["broken"], "at least", 0.90)
    classifier = quality.train_classifier(
        trained.tiles[:, 0], trained.labels, steps=CLASSIFIER_STEPS
    )
    for row in quality.flip_rates(classifier, generator, held).itertuples():
        yield Bar(
            name,
            f"{row.attribute}: flips a classifier, below the published {row.published:.2f} by",
            row.published - row.ours,
            "at most",
            0.25,
        )


def report(data: Path, only: str | None = None) -> pd.DataFrame:
    """Return every bar with its measurement; ``only`` "saliency" or "generator" measures one."""
    bars = [*(saliency_bars(data) if only != "generator" else ())]
    bars += [*(generator_bars(data) if only != "saliency" else ())]
    return pd.DataFrame(
        {
            "Model": bar.model,
            "Measure": bar.measure,
            "Value": round(bar.value, 3),
            "Bar": f"{bar.sense} {bar.bar:g}",
            "": "met" if bar.met else "MISSED",
        }
        for bar in bars
    )


def main(data: Path, only: str | None = None) -> None:
    """Print the shipped models' bars, measured on DATA."""
    typer.echo(report(data, only).to_markdown(index=False))


if __name__ == "__main__":
    try:
        typer.run(main)
    except SalattackError as error:
        raise SystemExit(str(error)) from None
