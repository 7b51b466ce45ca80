"""What Fig. 1 to 5 show: edits of a few faces, clean and disrupted."""

import statistics
import timeit
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from ..attacks import Attack
from ..errors import one_of
from ..images import as_saved
from ..metrics import BACKGROUND, fake_damage, photo_change
from ..runtime.progress import progress_bar
from .evaluation import evaluate
from .samples import FIG_5
from .study import Study
from .text import save_table


@dataclass(frozen=True, kw_only=True)
class Edits:
    """The K edits of N faces, clean and disrupted, in [-1, 1]; disrupted photos are 8-bit ones."""

    photos: Tensor  # I_org, (N, 3, H, W)
    names: tuple[str, ...]  # of the edits
    fakes: Tensor  # g(I_org), (N, K, 3, H, W), in the order of the names
    saliency_map: Tensor  # M, (N, 1, H, W) in [0, 1]
    perturbed: Tensor  # I_ptb, (N, K, 3, H, W): the photo disrupted against each edit
    broken: Tensor  # g(I_ptb), (N, K, 3, H, W)


def clean_edits(study: Study) -> tuple[Tensor, Tensor]:
    """Return the photos (N, 3, H, W) of a small study and their K fakes (N, K, 3, H, W).

    Raises:
        SalattackError: no face can be read, see `Faces.readable`.
    """
    study = study.readable()
    photos, labels, _ = next(study.batches(len(study.faces)))
    targets = [study.targets(labels, [name] * len(photos)) for name in study.edits.names]
    return photos, torch.stack([study.generate(photos, target) for target in targets], 1)


def edit_faces(study: Study, attack: Attack, aimed_at: str = "each") -> Edits:
    """Make every edit of every face of a small study, before and after an attack.

    ``aimed_at`` "each" disrupts the photo against each edit in turn. An edit's name disrupts it
    once, against that edit, and g edits this one photo in every way.

    Raises:
        SalattackError: an unknown edit, or no face can be read, see `Faces.readable`.
    """
    names = study.edits.names
    if aimed_at != "each" and aimed_at not in names:
        raise one_of("edit to aim at", aimed_at, ("each", *names))
    study = study.readable()
    photos, fakes = clean_edits(study)
    labels = study.faces.labels.to(study.device)
    targets = {name: study.targets(labels, [name] * len(photos)) for name in names}
    chosen = names if aimed_at == "each" else [aimed_at]
    saliency_map = study.saliency_map(photos)
    perturbed = {}
    with progress_bar(len(chosen) * len(photos) * attack.gradients) as bar:
        for name in chosen:
            bar.set_description(f"{len(photos)} images · against {name}")
            disrupted = study.disrupt(photos, targets[name], attack, saliency_map, bar.update)
            perturbed[name] = as_saved(disrupted)
    against = [perturbed.get(name, perturbed.get(aimed_at)) for name in names]
    broken = [study.generate(*pair) for pair in zip(against, targets.values(), strict=True)]
    return Edits(
        photos=photos,
        names=names,
        fakes=fakes,
        saliency_map=saliency_map,
        perturbed=torch.stack(against, 1),
        broken=torch.stack(broken, 1),
    )


class Example(NamedTuple):
    """One photo as each of some attacks disrupts it, and its fakes; in [-1, 1], with 8 bits."""

    attacks: list[Attack]
    pictures: Tensor  # (1 + attacks, 3, H, W): the photo, then the disrupted photos
    fakes: Tensor  # of these, alike; of several edits, the first
    psnr: list[float]  # of each disrupted photo, in dB
    damage: list[float]  # to the fake of each: MSE


def example(study: Study, edit: str, attacks: Iterable[Attack]) -> Example:
    """Disrupt the first face of a study, see `Faces.readable`, against an edit with each attack."""
    photo, labels, _ = next(study.readable().batches(1))
    target, saliency_map = study.targets(labels, [edit]), study.saliency_map(photo)
    attacks = list(attacks)
    moved = [as_saved(study.disrupt(photo, target, a, saliency_map)) for a in attacks]
    fake, *broken = fakes = [study.generate(picture, target) for picture in (photo, *moved)]
    psnr = [photo_change(photo, picture, saliency_map)["psnr"].item() for picture in moved]
    damage = [fake_damage(fake, one)["damage_l2"].item() for one in broken]
    return Example(attacks, torch.cat([photo, *moved]), torch.cat(fakes)[:, :3], psnr, damage)


def damage_by_edit(edits: Edits) -> pd.DataFrame:
    """Return, for each edit, the mean ``damage_l2`` in [-1, 1] and the share ``broken``."""
    pairs = zip(edits.fakes.unbind(1), edits.broken.unbind(1), strict=True)
    damages = [fake_damage(*pair) for pair in pairs]
    table = {key: [d[key].mean().item() for d in damages] for key in ("damage_l2", "success")}
    index = pd.Index(edits.names, name="edit")
    return pd.DataFrame(table, index).rename(columns={"success": "broken"})


def kept_exactly(edits: Edits) -> pd.DataFrame:
    """Return, for each photo, the percentage of pixels that no edit's disruption changed.

    Columns: of the whole ``photo``, and of its ``background`` as `photo_change` defines it.
    """
    same = (edits.perturbed == edits.photos[:, None]).all(2).all(1).float().flatten(1)
    outside = (edits.saliency_map < BACKGROUND).float().flatten(1)
    share = {"photo": same.mean(1), "background": (same * outside).sum(1) / outside.sum(1)}
    return pd.DataFrame({name: 100 * value.cpu().numpy() for name, value in share.items()})


def mask_quality(study: Study, batch_size: int = 16) -> tuple[pd.DataFrame, Tensor, Tensor]:
    """Measure the saliency maps of the shipped faces against their landmarks.

    Returns:
        A row per face, worst first: ``face_id``, ``inside`` (mean saliency in the ellipse of the
        face, `OpenPeople.face_ellipse`) and ``corners`` (mean in the two top corners, an eighth
        of the side each); and, in the same order, the photos (N, 3, H, W) and maps (N, 1, H, W).

    Raises:
        SalattackError: faces without landmarks.
    """
    batches = [(photos, study.saliency(photos)) for photos, _, _ in study.batches(batch_size)]
    photos, maps = (torch.cat(parts).cpu() for parts in zip(*batches, strict=True))
    corner = maps.shape[-1] // 8
    top = maps[..., :corner, :]
    corners = torch.cat([top[..., :corner], top[..., -corner:]], -1).flatten(1).mean(1)
    inside = [m[0, study.faces.face_ellipse(i)].mean().item() for i, m in enumerate(maps)]
    scores = {"face_id": study.faces.ids, "inside": inside, "corners": corners}
    scores = pd.DataFrame(scores).sort_values("inside")
    order = scores.index.tolist()
    return scores.reset_index(drop=True), photos[order], maps[order]


def save_samples(study: Study, name: str, attack: Attack, folder: str | Path) -> pd.DataFrame:
    """Measure an attack at Fig. 5's strength, a face on one edit in turn; write `FIG_5`.

    Returns:
        The rows of `evaluate`, with ``mask_seconds``: the median time of one face's mask.
    """
    photo = next(study.batches(1))[0]  # the copy of its map to the CPU waits for the device
    seconds = timeit.repeat(lambda: study.saliency_map(photo).cpu(), number=1)
    rows = evaluate(study, {name: attack}).assign(mask_seconds=statistics.median(seconds))
    save_table(folder, Path(FIG_5).stem, rows)
    return rows
