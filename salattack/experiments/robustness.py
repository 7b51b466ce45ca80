"""The gray box: what is left of the damage when somebody edits the photo before it is faked.

Whoever edits it does not know of the disruption. They get the saved 8-bit picture, and save what
they make of it with 8 bits again. Images are (N, 3, H, W) in [-1, 1].
"""

import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

from ..attacks import Attack
from ..blur import Blur
from ..edits import Targets
from ..errors import SalattackError, one_of
from ..generators import ATTRIBUTES, edit_labels
from ..images import as_saved, from_uint8, to_pil, to_tensor, to_uint8
from ..interfaces import Generator
from ..metrics import fake_damage
from ..minimum_norm import Saved
from ..presets import label_of
from ..runtime.progress import progress_bar
from .evaluation import aims, table_of
from .statistics import mean_over_faces, summarised
from .study import Study
from .text import Column, as_text, save_table

Transform = Callable[[Tensor], Tensor]  # (N, 3, H, W) in [-1, 1] → the same, on the CPU
SAVED = "8 bits"  # the saved picture as it is: what the others are compared to
TWICE = "edited twice"  # the untouched picture, and the fake of its fake
SAMPLE = ["face_id", "attribute", "attacker"]


def jpeg(images: Tensor, quality: int) -> Tensor:
    """Write and read (N, 3, H, W) images in [-1, 1] as JPEG; colours at half resolution."""
    return from_uint8(vision.jpeg(to_uint8(images), quality))


def webp(images: Tensor, quality: int) -> Tensor:
    """Write and read (N, 3, H, W) images in [-1, 1] as lossy WebP."""
    pictures = []
    for image in images:
        to_pil(image).save(buffer := io.BytesIO(), "WEBP", quality=quality)
        pictures.append(to_tensor(Image.open(buffer)))
    return torch.stack(pictures)


def resize_and_back(images: Tensor, factor: float) -> Tensor:
    """Resize (N, 3, H, W) images by ``factor`` and back, bilinear with antialiasing."""
    size = list(images.shape[-2:])
    return vision.resize(vision.resize(images, [round(side * factor) for side in size]), size)


def crop_and_resize(images: Tensor, share: float) -> Tensor:
    """Keep the centre, ``share`` of each side of (N, 3, H, W) images, at the full size."""
    size = list(images.shape[-2:])
    return vision.resize(vision.center_crop(images, [round(side * share) for side in size]), size)


TRANSFORMS: dict[str, Transform] = {
    SAVED: as_saved,
    **{f"JPEG {quality}": partial(jpeg, quality=quality) for quality in (95, 75, 50, 30)},
    "WebP 80": partial(webp, quality=80),
    **{f"Gaussian blur σ {sigma}": Blur("gaussian", 11, sigma) for sigma in (1, 2)},
    **{f"average blur {width}": Blur("average", width) for width in (3, 5)},
    "resize ½ and back": partial(resize_and_back, factor=0.5),
    "crop 90 % and resize": partial(crop_and_resize, share=0.9),
    **{f"noise σ {s}": partial(vision.gaussian_noise, sigma=s, clip=False) for s in (0.02, 0.05)},
    "4-bit posterise": lambda images: from_uint8(vision.posterize(to_uint8(images), 4)),
}
HARDER = (  # two strengths of a smooth transform, whose order does not depend on rounding
    ("Gaussian blur σ 1", "Gaussian blur σ 2"),
    ("average blur 3", "average blur 5"),
    ("noise σ 0.02", "noise σ 0.05"),
)


def edited(transform: Transform, images: Tensor, face_ids: Sequence[str], seed: int = 0) -> Tensor:
    """Return (N, 3, H, W) images in [-1, 1] as saved, transformed, and saved again.

    What the transform draws at random depends on ``seed`` and the face alone: it is the same for
    the photo and the disrupted photo, whatever the batch.
    """
    pictures = []
    with torch.random.fork_rng(devices=[]):
        for image, face_id in zip(as_saved(images).cpu(), face_ids, strict=True):
            torch.manual_seed(zlib.crc32(f"{seed} {face_id}".encode()))
            pictures.append(as_saved(transform(image[None])))
    return torch.cat(pictures).to(images)


def through(generator: Generator, transforms: Sequence[Transform]) -> Generator:
    """Return g as it sees an image itself and after each transform: T + 1 fakes, one by one.

    A minimum-norm attack on it looks for the smallest change that breaks the fake of the image
    *and* after every transform, each compared to the fake of the photo after the same one. The
    gradient passes straight through a transform that has none (JPEG). An iteration costs as much
    as T + 1 of g's.
    """

    def generate(images: Tensor, target: Tensor) -> Tensor:
        seen = [images]
        for transform in transforms:
            after = Saved.apply(transform(images))
            seen.append(after if after.requires_grad else images + (after - images).detach())
        return torch.cat([generator(one, target) for one in seen], 1)

    return generate


def remaining_damage(
    study: Study,
    attacks: Mapping[str, Attack],
    transforms: Mapping[str, Transform] = TRANSFORMS,
    *,
    asked_after: Sequence[str] = (),
    targets: str = "rotate",
    batch_size: int = 10,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Attack each photo once with each attacker, and measure what each transform leaves of it.

    For a small study: all rows are kept in memory, and faces must be `Faces.readable`.

    ``asked_after`` names transforms after which a minimum-norm attacker has to break the fake as
    well, see `through`. ``targets`` are those of `aims`; ``seed`` is that of the transforms' noise.

    Returns:
        One row per face × attribute × attacker × transform, and one for `TWICE`, where g edits
        its own output again, in the next of its edits (of "joint", each output in its next):
        ``l2``, the mean squared difference of T(I_ptb) and T(I_org); `fake_damage` between
        g(T(I_org)) and g(T(I_ptb)), so that T's own effect on the fake cancels; ``remaining``,
        ``damage_l2`` over that at `SAVED`. All in [-1, 1].

    Raises:
        SalattackError: an unknown target or transform, batch_size < 1, no attacker, or no face
            can be read.
    """
    if batch_size < 1:
        raise SalattackError(f"batch_size must be ≥ 1, got {batch_size}")
    if not attacks:
        raise SalattackError("there is no attacker to measure; name at least one")
    study, names = study.readable(), study.edits.names
    rounds = len(aims(targets, 0, 1, names))
    work = len(study.faces) * rounds * sum(a.gradients for a in attacks.values())
    apply = {SAVED: as_saved} | dict(transforms)
    if unknown := [name for name in asked_after if name not in apply]:
        raise one_of("transform", unknown[0], apply)
    asked = through(study.generator, [apply[name] for name in asked_after])
    aimed = replace(study, generator=asked) if asked_after else study
    parts: list[pd.DataFrame] = []
    done = 0
    with progress_bar(work, hidden=not progress) as bar:
        for photos, labels, ids in study.batches(batch_size):
            maps = study.saliency_map(photos)
            for attributes in aims(targets, done, len(ids), names):
                target, second = _targets(study, labels, attributes)
                fakes = partial(_fakes, study, apply, ids, seed, target, second)
                clean = fakes(photos)
                for name, attack in attacks.items():
                    bar.set_description(f"{done}/{len(study.faces)} images · {label_of(name)}")
                    broken = fakes(aimed.disrupt(photos, target, attack, maps, bar.update))
                    head = dict(zip(SAMPLE, (ids, attributes, name), strict=True))
                    for transform, (picture, fake) in clean.items():
                        disrupted, damaged = broken[transform]
                        l2 = (disrupted - picture).square().flatten(1).mean(1)
                        measures = {"l2": l2} | fake_damage(fake, damaged)
                        parts.append(table_of(head | {"transform": transform}, measures))
            done += len(ids)
    rows = pd.concat(parts, ignore_index=True)
    untouched = rows.groupby(SAMPLE)["damage_l2"].transform("first")
    return rows.assign(remaining=rows["damage_l2"] / untouched)


def _targets(study: Study, labels: Tensor, edits: Sequence[str]) -> tuple[Targets, Targets]:
    """Return the targets of these edits, and of the next ones, of faces so edited."""
    names = study.edits.names
    if set(edits) == {"joint"}:
        pairs = [_targets(study, labels, [name] * len(labels)) for name in names]
        return tuple(zip(*pairs, strict=True))
    after = [
        edit_labels(row, edit) if edit in ATTRIBUTES else row
        for row, edit in zip(labels.split(1), edits, strict=True)
    ]
    following = [names[(names.index(edit) + 1) % len(names)] for edit in edits]
    return study.targets(labels, edits), study.targets(torch.cat(after), following)


def _fakes(
    study: Study,
    apply: Mapping[str, Transform],
    face_ids: Sequence[str],
    seed: int,
    target: Targets,
    second: Targets,
    images: Tensor,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return T(images) and g(T(images)) by the name of T; at `TWICE`, g has edited its own fake."""
    seen = {name: edited(transform, images, face_ids, seed) for name, transform in apply.items()}
    fakes = {name: (picture, study.generate(picture, target)) for name, picture in seen.items()}
    saved, fake = fakes[SAVED]
    pairs = zip(fake.split(3, 1), second if isinstance(second, tuple) else (second,), strict=True)
    return fakes | {TWICE: (saved, torch.cat([study.generate(*pair) for pair in pairs], 1))}


def summarise(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Summarise `remaining_damage` over faces, each averaged over its attributes first.

    Returns:
        A row per transform and attacker, in order of appearance: ``faces``; the means ``l2``,
        ``damage_l2`` and ``success``; ``remaining``, the mean damage over the mean damage at
        `SAVED`, NaN where that is zero; and ``_low`` and ``_high`` (95 %) of ``damage_l2`` and
        ``remaining``, NaN for a single person.
    """
    by = ["transform", "attacker"]
    untouched = rows[rows["transform"] == SAVED].set_index(SAMPLE)["damage_l2"]
    rows = rows.join(untouched.rename("untouched"), on=SAMPLE)
    measures = {
        "damage_l2": mean_over_faces,
        "remaining": lambda rows, _, seed: mean_over_faces(rows, "damage_l2", seed, "untouched"),
    }
    table = summarised(rows, by, measures, seed)
    faces = rows.groupby([*by, "face_id"])[["l2", "success"]].mean()
    return table.join(faces.groupby(level=by).mean())


def percent_left(table: pd.DataFrame) -> pd.DataFrame:
    """Return how many percent of the damage are left [95 %]: transforms × attackers, as text."""
    left = as_text(table, [Column("left", "remaining", 0, 100)])["left"]
    wide = left.unstack("attacker", sort=False)
    return wide.rename_axis(index="Edit of the photo", columns=None)


def harder_leaves_less(rows: pd.DataFrame) -> pd.DataFrame:
    """Count on how many samples (a face and an edit) the harder transform of a pair leaves less.

    A row per attacker, a column per pair of `HARDER`: "k of n". Rows must have all `TRANSFORMS`.
    """
    wide = rows.pivot_table("damage_l2", SAMPLE, "transform", sort=False)
    less = pd.DataFrame({f"{b} below {a}": wide[b] < wide[a] for a, b in HARDER})
    found = less.groupby("attacker", sort=False).agg(lambda held: f"{held.sum()} of {len(held)}")
    return found.rename(index=label_of).rename_axis("Attacker")


def save_left(folder: str | Path, table: pd.DataFrame) -> None:
    """Write `summarise`'s result as ``robustness.csv``, and `percent_left` as ``robustness.md``."""
    title = "Damage left, in % of that on the untouched 8-bit picture: ratio of means [95 %]."
    save_table(folder, "robustness", table, percent_left(table), title)
