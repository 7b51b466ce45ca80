"""How near a generator is to the published one, and how it breaks, on held-out grids."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure as ssim

from ..attacks import attacker
from ..faces import from_uint8
from ..generators import ATTRIBUTES, Generator
from ..metrics import fake_damage
from .grids import HELD_OUT, Grids, load_grids


def evaluate(
    generator: Generator,
    data: Path | Grids,
    *,
    edits: Sequence[str] = ATTRIBUTES,
    faces: int | None = None,
    attacked: int | None = None,
    batch_size: int = 8,
    held_out: int = HELD_OUT,
    bfloat16: bool = False,
) -> dict[str, float]:
    """Measure a generator on the held-out grids.

    Args:
        generator: images (N, 3, 128, 128) in [-1, 1] and labels (N, 5) to images.
        data: the folder of grids, or the held-out faces themselves.
        edits: those the generator makes.
        faces: how many to use, spread evenly; all by default.
        attacked: how many of them to attack (one edit each, in turn); all by default.
        batch_size: faces at once.
        held_out: how many grids are held out, where ``data`` is a folder.
        bfloat16: run the generator in half precision.

    Returns:
        ``ratio_<attribute>`` and ``ratio``: mean absolute error to the recorded output over that
        of the unedited crop; ``ssim`` to the recorded output; ``damage``: mean squared change of
        the output under the "pgd" attacker; ``broken``: share of outputs changed by more than 0.05.
    """
    held = data if isinstance(data, Grids) else load_grids(data).split(held_out)[1]
    if faces is not None:
        held = held[torch.linspace(0, len(held) - 1, min(faces, len(held))).round().long()]
    count = len(held) if attacked is None else min(attacked, len(held))
    targets = held.targets()

    def run(images: Tensor, target: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
            return generator(images, target).float()

    chosen = [ATTRIBUTES.index(name) for name in edits]
    ours, still, similar = torch.zeros(5), torch.zeros(5), 0.0
    damage: list[dict[str, Tensor]] = []
    for start in range(0, len(held), batch_size):
        part = slice(start, start + batch_size)
        tiles = from_uint8(held.tiles[part])
        crops = tiles[:, 0]
        for edit in chosen:
            with torch.no_grad():
                fake = run(crops, targets[part, edit])
            official = tiles[:, 1 + edit]
            ours[edit] += (fake - official).abs().mean((1, 2, 3)).sum().cpu()
            still[edit] += (crops - official).abs().mean((1, 2, 3)).sum().cpu()
            similar += float(ssim(fake, official, data_range=2.0, reduction="sum"))
        crops = crops[: max(0, count - start)]
        if len(crops):
            face = torch.arange(start, start + len(crops))
            target = targets[face, torch.tensor(chosen)[face % len(chosen)]]
            disrupted = attacker("pgd")(run, crops, target)
            with torch.no_grad():
                damage.append(fake_damage(run(crops, target), run(disrupted, target)))
    ratio = (ours / still)[chosen]
    result = {f"ratio_{name}": float(r) for name, r in zip(edits, ratio, strict=True)}
    result |= {"ratio": float(ratio.mean()), "ssim": similar / len(held) / len(edits)}
    if damage:
        result["damage"] = float(torch.cat([d["damage_l2"] for d in damage]).mean())
        result["broken"] = float(torch.cat([d["success"] for d in damage]).mean())
    return result


def train_classifier(
    images: Tensor, labels: Tensor, *, steps: int = 2000, batch_size: int = 64, seed: int = 0
) -> nn.Module:
    """Train a tiny classifier of the five attributes, to tell whether an edit shows.

    Args:
        images: (N, 3, H, W) uint8 crops framed as StarGAN's; 64 px are enough.
        labels: (N, 5) labels, 0 or 1.
        steps: of Adam, learning rate 2e-3 falling to 0.
        batch_size: faces a step.
        seed: of weights and draws.

    Returns:
        Images (N, 3, H, W) in [-1, 1], of any size, to (N, 5) logits.
    """
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    device = images.device
    widths = (3, 16, 32, 64, 96)
    layers: list[nn.Module] = [nn.AdaptiveAvgPool2d(64)]
    for a, b in itertools.pairwise(widths):
        layers += [nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
    head = [nn.Flatten(), nn.Dropout(0.5), nn.Linear(96 * 4 * 4, len(ATTRIBUTES))]
    classifier = nn.Sequential(*layers, *head).to(device)
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
    """Return how often an edit changes what a classifier sees in a face.

    Counted for an attribute are the faces that lack what its edit asks for, and whose crop the
    classifier judges as labelled.

    Args:
        classifier: see `train_classifier`.
        generator: the generator to judge.
        held: faces with the published generator's edits beside them.

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
        for part in index.split(8):
            tiles = from_uint8(held.tiles[part])
            for i, image in enumerate((generator(tiles[:, 0], target[part]), tiles[:, 1 + k])):
                reached = (classifier(image)[:, k] > 0) == target[part, k].bool()
                shares[i] += reached.sum().cpu() / len(index)
        ours, published = shares.tolist()
        accuracy = float(right[:, k].float().mean())
        rows.append((name, len(index), ours, published, accuracy))
    return pd.DataFrame(rows, columns=["attribute", "faces", "ours", "published", "accuracy"])
