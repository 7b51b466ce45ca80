"""The shipped models measured against the quality bars that were set for them.

This needs the training and test data (see the model cards) in one folder, laid out as
``stargan-celeba128-outputs/`` and ``saliency/ecssd_256.tar``.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from ..experiments.demonstration import mask_quality
from ..experiments.study import open_study
from ..generators import load_generator
from ..runtime.device import pick_device
from ..runtime.weights import SHIPPED
from ..saliency import SALIENCY_MODELS, load_saliency
from .grids import load_grids
from .quality import flip_rates, generator_quality, saliency_quality, train_classifier


def saliency_bars(data: Path) -> Iterator[tuple]:
    """Yield measure, value, "at most" or "at least", and what was asked of pfan-light."""
    model = load_saliency("pfan-light", device="cpu")
    size = (SHIPPED / SALIENCY_MODELS["pfan-light"].file).stat().st_size
    yield "parameters (M)", sum(p.numel() for p in model.parameters()) / 1e6, "at most", 8
    yield "file (MB)", size / 1e6, "at most", 16
    found = saliency_quality(model, data / "saliency" / "ecssd_256.tar")
    yield f"ECSSD MAE, {found['images']} images", found["mae"], "at most", 0.065
    yield "ECSSD max-Fβ (mean precision, recall)", found["max_f"], "at least", 0.90
    yield "ECSSD max-Fβ (mean F)", found["max_mean_f"], "at least", 0.90
    study = open_study(device="cpu")
    masks = mask_quality(study)[0]
    faces = f"{len(masks)} shipped faces"
    yield f"least saliency inside the face, {faces}", masks["inside"].min(), "at least", 0.9
    yield f"most saliency in the top corners, {faces}", masks["corners"].max(), "at most", 0.1
    photos, _, _ = next(study.batches(16))
    model(photos)
    began = time.perf_counter()
    model(photos)
    elapsed = time.perf_counter() - began
    yield "ms per face, batch of 16", 1000 * elapsed / len(photos), "at most", 60


def generator_bars(data: Path) -> Iterator[tuple]:
    """Yield the same of stargan-celeba128-w32, on the held-out grids."""
    place = pick_device()
    grids = load_grids(data / "stargan-celeba128-outputs")
    trained, held = (part.to(place) for part in grids.split())
    generator = load_generator("stargan-celeba128-w32")
    found = generator_quality(generator, held, bfloat16=True)
    error = f"error to the published output relative to identity's, {len(held)} faces × 5 edits"
    yield error, found["ratio"], "at most", 0.55
    yield "SSIM to the published output", found["ssim"], "at least", 0.75
    yield "PGD damage, MSE in [-1, 1]", found["damage"], "at least", 0.20
    yield "share of outputs above 0.05", found["broken"], "at least", 0.90
    judge = train_classifier(trained.tiles[:, 0], trained.labels)
    for row in flip_rates(judge, generator, held).itertuples():
        measure = f"{row.attribute}: flip rate below the published model's {row.published:.2f} by"
        yield measure, row.published - row.ours, "at most", 0.25


def bars(data: Path) -> str:
    """Measure the shipped models against their quality bars; returns a Markdown table."""
    rows = []
    models = {"pfan-light": saliency_bars, "stargan-celeba128-w32": generator_bars}
    for name, measured in models.items():
        for measure, value, sense, bar in measured(data):
            met = value <= bar if sense == "at most" else value >= bar
            verdict = "met" if met else "MISSED"
            rows.append((name, measure, round(value, 3), f"{sense} {bar:g}", verdict))
    table = pd.DataFrame(rows, columns=["Model", "Measure", "Value", "Bar", ""])
    return table.to_markdown(index=False)
