"""How good a generator or saliency model is, measured on data it was not trained on."""

import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure as ssim
from tqdm import tqdm

from ..experiments.demonstration import mask_quality
from ..experiments.study import open_study
from ..generators import ATTRIBUTES, load_generator
from ..images import from_uint8, to_tensor
from ..interfaces import Generator, Saliency
from ..metrics import fake_damage
from ..presets import attacker
from ..runtime.device import pick_device
from ..runtime.weights import SHIPPED_WEIGHTS
from ..saliency import SALIENCY_MODELS, load_saliency
from .grids import Grids, load_grids
from .saliency import Pairs

AT_ONCE = 8  # faces in a batch


def generator_quality(
    generator: Generator,
    held: Grids,
    *,
    edits: Sequence[str] = ATTRIBUTES,
    attacked: int | None = None,
    bfloat16: bool = False,
) -> dict[str, float]:
    """Measure how near a generator is to the published one, and how an attack breaks it.

    The faces ``held`` are ones that it was not trained on, and ``edits`` those that it makes. The
    first ``attacked`` of the faces (all by default) are attacked on the edits in rotation.
    ``bfloat16`` runs the generator in half precision.

    Returns:
        ``ratio_<attribute>`` and ``ratio``: mean absolute error to the recorded output relative to
        that of the unedited crop; ``ssim`` to the recorded output; ``damage``: mean squared change
        of the output under the "pgd" attacker; ``broken``: share of outputs changed by over 0.05.
    """
    count, targets = len(held) if attacked is None else attacked, held.targets()

    def run(images: Tensor, target: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
            return generator(images, target).float()

    chosen = [ATTRIBUTES.index(name) for name in edits]
    sums, damage = np.zeros((len(edits), 3)), []  # errors of g and of the crop, SSIM, by edit
    for start in range(0, len(held), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        tiles = from_uint8(held.tiles[part])
        crops = tiles[:, 0]
        for place, edit in enumerate(chosen):
            official = tiles[:, 1 + edit]
            with torch.no_grad():
                fake = run(crops, targets[part, edit])
            errors = ((x - official).abs().mean((1, 2, 3)).sum().item() for x in (fake, crops))
            sums[place] += (*errors, ssim(fake, official, data_range=2.0, reduction="sum").item())
        if len(crops := crops[: max(0, count - start)]):
            face = torch.arange(start, start + len(crops))
            target = targets[face, torch.tensor(chosen)[face % len(chosen)]]
            disrupted = attacker("pgd")(run, crops, target)
            with torch.no_grad():
                change = fake_damage(run(crops, target), run(disrupted, target))
            damage.append(torch.stack([change["damage_l2"], change["success"]]))
    ratios = sums[:, 0] / sums[:, 1]
    result = {f"ratio_{name}": float(ratio) for name, ratio in zip(edits, ratios, strict=True)}
    result |= {"ratio": ratios.mean(), "ssim": sums[:, 2].mean() / len(held)}
    if damage:
        result["damage"], result["broken"] = torch.cat(damage, 1).mean(1).tolist()
    return result


def train_classifier(
    images: Tensor, labels: Tensor, *, steps: int = 600, batch_size: int = 64, seed: int = 0
) -> nn.Module:
    """Train a small classifier of the five attributes, which judges whether an edit shows.

    It takes images (N, 3, H, W) in [-1, 1], of any size, and returns (N, 5) logits. It learns from
    (N, 3, H, W) uint8 crops framed as StarGAN's, of 64 px or more, and (N, 5) labels, 0 or 1.
    """
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = [nn.AdaptiveAvgPool2d(64)]
    for a, b in itertools.pairwise((3, 16, 32, 64, 96)):
        layers += [nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
    head = [nn.Flatten(), nn.Dropout(0.5), nn.Linear(96 * 4 * 4, len(ATTRIBUTES))]
    classifier = nn.Sequential(*layers, *head).to(images.device)
    adam = torch.optim.AdamW(classifier.parameters(), 2e-3)
    for step in range(steps):
        adam.param_groups[0]["lr"] = 2e-3 * (1 - step / steps)
        index = torch.randint(len(images), (batch_size,), generator=rng)
        batch = from_uint8(images[index])
        batch = batch.flip(-1) if torch.rand((), generator=rng) < 0.5 else batch
        loss = F.binary_cross_entropy_with_logits(classifier(batch), labels[index])
        adam.zero_grad()
        loss.backward()
        adam.step()
    return classifier.requires_grad_(False).eval()


@torch.no_grad()
def flip_rates(classifier: nn.Module, generator: Generator, held: Grids) -> pd.DataFrame:
    """Return how often an edit changes what a classifier (see `train_classifier`) sees in a face.

    Only faces count that lack the edit's attribute and whose crop the classifier judges rightly.

    Returns:
        A row for each attribute: ``faces`` counted, ``ours`` and ``published``, the shares of
        their edits in which the classifier sees the target, and the classifier's ``accuracy``.
    """
    seen = torch.cat([classifier(from_uint8(part)) > 0 for part in held.tiles[:, 0].split(32)])
    right = seen == held.labels.bool()
    rows = []
    for k, name in enumerate(ATTRIBUTES):
        target = held.targets()[:, k]
        index = (right[:, k] & (target[:, k] != held.labels[:, k])).nonzero().flatten()
        shares = torch.zeros(2)
        for part in index.split(AT_ONCE):
            tiles = from_uint8(held.tiles[part])
            for i, image in enumerate((generator(tiles[:, 0], target[part]), tiles[:, 1 + k])):
                reached = (classifier(image)[:, k] > 0) == target[part, k].bool()
                shares[i] += reached.sum().cpu() / len(index)
        ours, published = shares.tolist()
        accuracy = float(right[:, k].float().mean())
        rows.append((name, len(index), ours, published, accuracy))
    return pd.DataFrame(rows, columns=["attribute", "faces", "ours", "published", "accuracy"])


def saliency_quality(saliency: Saliency, pairs: Path) -> dict[str, float]:
    """Measure a saliency model on a tar of pairs such as ECSSD, each image at its own size.

    The maps are not stretched to [0, 1]. Unusable data raise SalattackError.

    Returns:
        ``images``; ``mae``; ``max_f``, the largest F-beta (beta² = 0.3) of the mean precision and
        recall over thresholds, as in the PFAN paper; ``max_mean_f``, the largest mean F-beta;
        ``s_measure``.
    """
    import py_sod_metrics as sod  # of the extra "train"

    data = Pairs(pairs)
    options = {"with_dynamic": True, "with_adaptive": False}
    handlers = {"p": sod.PrecisionHandler(**options), "r": sod.RecallHandler(**options)}
    handlers["f"] = sod.FmeasureHandler(**options, beta=0.3)
    curves, mae, s_measure = sod.FmeasureV2(handlers), sod.MAE(), sod.Smeasure()
    for index in tqdm(range(len(data)), mininterval=10):
        image, mask = data[index]
        found = saliency(to_tensor(image)[None])[0, 0].double().numpy()
        truth = np.asarray(mask.resize(image.size)) > 127
        for metric in (curves, mae, s_measure):
            metric.step(found, truth, normalize=False)
    f, p, r = (curves.get_results()[name]["dynamic"] for name in "fpr")
    return {
        "images": len(data),
        "mae": float(mae.get_results()["mae"]),
        "max_f": float((1.3 * p * r / (0.3 * p + r + 1e-12)).max()),
        "max_mean_f": float(f.max()),
        "s_measure": float(s_measure.get_results()["sm"]),
    }


def _saliency_bars(data: Path) -> Iterator[tuple]:
    """Yield measure, value, "at most" or "at least", and what was asked of pfan-light."""
    model = load_saliency("pfan-light", device="cpu")
    size = (SHIPPED_WEIGHTS / SALIENCY_MODELS["pfan-light"].file).stat().st_size
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


def _generator_bars(data: Path) -> Iterator[tuple]:
    """Yield the same of stargan-celeba128-w32, on the held-out grids."""
    grids = load_grids(data / "stargan-celeba128-outputs")
    trained, held = (part.to(pick_device()) for part in grids.split())
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
    """Measure the shipped models against the bars that were set for them, as a Markdown table.

    The folder holds the data of the model cards: ``stargan-celeba128-outputs/`` and
    ``saliency/ecssd_256.tar``.
    """
    rows = []
    models = {"pfan-light": _saliency_bars, "stargan-celeba128-w32": _generator_bars}
    for name, measured in models.items():
        for measure, value, sense, bar in measured(data):
            met = value <= bar if sense == "at most" else value >= bar
            row = (name, measure, round(value, 3), f"{sense} {bar:g}", "met" if met else "MISSED")
            rows.append(row)
    table = pd.DataFrame(rows, columns=["Model", "Measure", "Value", "Bar", ""])
    return table.to_markdown(index=False)
