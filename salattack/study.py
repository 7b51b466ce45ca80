"""Faces, g and f_sa together: what the figures show of them, clean and disrupted."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from .attacks import Attack
from .edits import Targets
from .errors import SalattackError, one_of
from .faces import Faces, load_faces
from .generators import (
    GENERATORS,
    EditSet,
    Generator,
    edits_of,
    load_generator,
    stargan,
)
from .metrics import BACKGROUND, as_saved, fake_damage, unit_features
from .regions import REGIONS
from .saliency import SALIENCY_MODELS, Saliency, load_saliency
from .weights import Model, pick_device, sha256

COMPUTE = ("float32", "bfloat16")
COARSE = 0.01  # a start in [-1, 1] that bfloat16's steps, 0.004 to 0.008 there, still show


@dataclass(frozen=True, kw_only=True)
class Study:
    """What an experiment needs: the faces, g, f_sa, and where to compute.

    Attributes:
        faces: the photos.
        generator: g(·).
        edits: what g can be asked for, and how.
        saliency: f_sa(·), images to maps (Eq. 1).
        device: of the two networks.
        compute: "float32", or "bfloat16" for the generator's arithmetic inside the attack, about
            twice as fast where the processor has it; the image, its step and every measure stay
            float32, and so do attackers that start within `COARSE` of the photo without a blur.
        origin: name and checksum of each model, for a ledger or a manifest. Give them in a study
            made by hand, or a ledger cannot tell its models from others.
    """

    faces: Faces
    generator: Generator
    saliency: Saliency
    device: torch.device
    compute: Literal["float32", "bfloat16"] = "float32"
    edits: EditSet = stargan.EDITS
    origin: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.compute not in COMPUTE:
            raise one_of("arithmetic", self.compute, COMPUTE)

    def settings(self) -> dict[str, object]:
        """Return what every result depends on besides the faces, as plain values."""
        size = {"image_size": self.faces.image_size}
        return {**self.origin, **size, "compute": self.compute, "device": self.device.type}

    def readable(self) -> "Study":
        """Return this study with faces that can all be read, see `Faces.readable`."""
        return replace(self, faces=self.faces.readable())

    def targets(self, labels: Tensor, edits: Sequence[str]) -> Targets:
        """Return g's targets for faces of (N, 5) labels, one of its edits each: a row per face.

        Where every edit is "joint": a tuple of the targets of all its edits.

        Raises:
            SalattackError: an edit that g does not make.
        """
        return self.edits.targets(self.generator, labels, edits)

    def batches(self, batch_size: int = 10) -> Iterator[tuple[Tensor, Tensor, list[str]]]:
        """Yield photos (n, 3, H, W) in [-1, 1] and labels (n, 5) on the device, and face ids."""
        for images, labels, ids in DataLoader(self.faces, batch_size=batch_size):
            yield images.to(self.device), labels.to(self.device), list(ids)

    def generate(self, images: Tensor, target: Targets) -> Tensor:
        """Return g(images) for (N, 3, H, W) images in [-1, 1], without gradients.

        A tuple of K targets asks for K edits of each image: (N, 3 K, H, W).
        """
        with torch.no_grad():
            return self._fine(images, target)

    def _fine(self, images: Tensor, target: Targets) -> Tensor:
        if not isinstance(target, tuple):
            return self.generator(images, target)
        return torch.cat([self.generator(images, one) for one in target], 1)

    def saliency_map(self, images: Tensor) -> Tensor:
        """Return M (N, 1, H, W) in [0, 1] of (N, 3, H, W) images in [-1, 1]."""
        with torch.no_grad():
            return self.saliency(images)

    def disrupt(
        self,
        photos: Tensor,
        target: Targets,
        attack: Attack,
        saliency_map: Tensor,
        on_gradient: Callable[[int], object] | None = None,
    ) -> Tensor:
        """Run Algorithm 1 on (N, 3, H, W) photos: return I_ptb.

        Args:
            photos: I_org in [-1, 1].
            target: see `Attack`.
            attack: the attacker.
            saliency_map: M (N, 1, H, W); the attack's ``region`` is made of it.
            on_gradient: see `Attack`.

        Returns:
            I_ptb, like the photos. Where the memory does not hold the batch, it is halved.

        Raises:
            SalattackError: a loss on features, with a saliency model that gives none; a batch too
                large for the memory, with a shared attack.
        """
        try:
            return self._disrupt(photos, target, attack, saliency_map, on_gradient)
        except RuntimeError as error:
            if len(photos) == 1 or not _out_of_memory(error):
                raise
        if attack.shared:
            raise SalattackError(
                f"{len(photos)} images at a time are too many for the memory, and a shared "
                "perturbation needs them together; give a smaller batch_size or fewer faces"
            )
        half = len(photos) // 2
        warnings.warn(
            f"{len(photos)} images at a time are too many for the memory: going on with {half}; "
            "give a smaller batch_size",
            stacklevel=2,
        )
        parts = zip(*(_split(t, half) for t in (photos, target, saliency_map)), strict=True)
        return torch.cat([self.disrupt(x, t, attack, m, on_gradient) for x, t, m in parts])

    def _disrupt(
        self,
        photos: Tensor,
        target: Targets,
        attack: Attack,
        saliency_map: Tensor,
        on_gradient: Callable[[int], object] | None,
    ) -> Tensor:
        region = features = None
        if attack.region != "everywhere":
            fakes = self.generate(photos, target)
            region = REGIONS[attack.region](photos, fakes, saliency_map)
        if attack.loss == "features":
            if not hasattr(self.saliency, "feature_maps"):
                raise SalattackError("this saliency model has no features; use pfan-light")
            features = partial(unit_features, features=self.saliency.feature_maps)
        # bfloat16 has 8 bits: it cannot see the loss's slope ±0.001 beside the photo.
        fine = self.compute == "float32" or (not attack.blurs and attack.start < COARSE)
        generator = self._fine if fine else self._coarse
        return attack(generator, photos, target, region, features=features, on_gradient=on_gradient)

    def _coarse(self, images: Tensor, target: Targets) -> Tensor:
        with torch.autocast(self.device.type, getattr(torch, self.compute)):
            return self._fine(images, target).float()


def _split(target: Targets, size: int) -> Sequence[Targets]:
    if not isinstance(target, tuple):
        return target.split(size)
    return list(zip(*(one.split(size) for one in target), strict=True))


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@dataclass(frozen=True, kw_only=True)
class Edits:
    """Five edits of each face, clean and disrupted: what Fig. 1 to 5 show.

    Disrupted photos are those that a user would save (8 bits), and so their fakes.

    Attributes:
        photos: I_org, (N, 3, H, W) in [-1, 1].
        names: of g's K edits.
        fakes: g(I_org), (N, K, 3, H, W), in the order of ``names``.
        saliency_map: M, (N, 1, H, W) in [0, 1].
        perturbed: I_ptb, (N, K, 3, H, W): the photo that stands against each edit.
        broken: g(I_ptb), (N, K, 3, H, W).
    """

    photos: Tensor
    names: tuple[str, ...]
    fakes: Tensor
    saliency_map: Tensor
    perturbed: Tensor
    broken: Tensor


def clean_edits(study: Study) -> tuple[Tensor, Tensor]:
    """Return the photos (N, 3, H, W) of a (small) study and their K fakes (N, K, 3, H, W).

    The set's next faces replace those that cannot be read, see `Faces.readable`.

    Raises:
        SalattackError: no face can be read.
    """
    study = study.readable()
    photos, labels, _ = next(study.batches(len(study.faces)))
    targets = [study.targets(labels, [name] * len(photos)) for name in study.edits.names]
    return photos, torch.stack([study.generate(photos, target) for target in targets], 1)


def progress_bar(gradients: int, *, hidden: bool = False) -> tqdm:
    """Return a bar on stderr over so many gradients of g, the unit of an attack's cost."""
    layout = "{desc} {percentage:3.0f}%|{bar}| {elapsed} so far, {remaining} left"
    return tqdm(total=gradients, disable=hidden, bar_format=layout, ncols=100, leave=False)


def edit_faces(study: Study, attack: Attack, aimed_at: str = "each") -> Edits:
    """Make every edit of every face of a (small) study, before and after an attack.

    The set's next faces replace those that cannot be read, see `Faces.readable`.

    Args:
        study: faces and models.
        attack: the attacker.
        aimed_at: "each" disrupts the photo anew against each edit; an edit's name disrupts
            it once, against that edit, and gives g the same photo for all of them.

    Raises:
        SalattackError: an unknown edit, or no face can be read.
    """
    names = study.edits.names
    if aimed_at != "each" and aimed_at not in names:
        raise one_of("edit to aim at", aimed_at, ("each", *names))
    study = study.readable()
    photos, fakes = clean_edits(study)
    labels = study.faces.labels.to(study.device)
    targets = [study.targets(labels, [name] * len(photos)) for name in names]
    chosen = [name for name in names if aimed_at in ("each", name)]
    saliency_map = study.saliency_map(photos)
    perturbed = {}
    with progress_bar(len(chosen) * len(photos) * attack.gradients) as bar:
        for name in chosen:
            bar.set_description(f"{len(photos)} images · against {name}")
            target = targets[names.index(name)]
            disrupted = study.disrupt(photos, target, attack, saliency_map, bar.update)
            perturbed[name] = as_saved(disrupted)
    against = [perturbed.get(name, perturbed.get(aimed_at)) for name in names]
    pairs = list(zip(against, targets, strict=True))
    return Edits(
        photos=photos,
        names=names,
        fakes=fakes,
        saliency_map=saliency_map,
        perturbed=torch.stack(against, 1),
        broken=torch.stack([study.generate(images, target) for images, target in pairs], 1),
    )


def open_study(
    *,
    faces: str = "openpeople",
    kind: str | Sequence[str] | None = None,
    n_images: int | None = None,
    generator: str = "stargan-celeba128-w32",
    generator_weights: str | None = None,
    saliency: str = "pfan-light",
    saliency_weights: str | None = None,
    image_size: int | None = None,
    device: str = "auto",
    compute: str = "float32",
    split: str | None = None,
    seed: int = 0,
) -> Study:
    """Load what an experiment needs, by name.

    Args:
        faces: see `load_faces`.
        kind: of the shipped faces.
        n_images: how many faces, None for all.
        generator: see `load_generator`.
        generator_weights: a file to use in place of the shipped weights.
        saliency: see `load_saliency`.
        saliency_weights: a file to use in place of the shipped weights.
        image_size: side in pixels; None takes what the generator was trained for.
        device: "auto" takes CUDA where there is one.
        compute: see `Study`.
        split: of the faces, see `load_faces`.
        seed: of the order in which a split is drawn.

    Raises:
        SalattackError: an unknown name, or files that do not fit.
    """
    g = load_generator(generator, generator_weights, device)
    size = GENERATORS[generator].image_size if image_size is None else image_size
    if size < 16 or size % 4:
        raise SalattackError(f"image_size must be a multiple of 4 from 16 up, got {size}")
    f_sa = load_saliency(saliency, saliency_weights, device)
    return Study(
        faces=load_faces(
            faces, kind=kind, n_images=n_images, image_size=size, split=split, seed=seed
        ),
        generator=g,
        saliency=f_sa,
        device=pick_device(device),
        compute=compute,
        edits=edits_of(generator),
        origin={
            "generator": [generator, _checksum(GENERATORS[generator], generator_weights)],
            "saliency": [saliency, _checksum(SALIENCY_MODELS[saliency], saliency_weights)],
        },
    )


def _checksum(model: Model, weights: str | None) -> str | None:
    return model.sha256 if weights is None else sha256(Path(weights))


def damage_by_edit(edits: Edits) -> pd.DataFrame:
    """Return, for each edit, the mean ``damage_l2`` in [-1, 1] and the share ``broken``."""
    table = {}
    for index, label in enumerate(edits.names):
        damage = fake_damage(edits.fakes[:, index], edits.broken[:, index])
        table[label] = {
            "damage_l2": damage["damage_l2"].mean().item(),
            "broken": damage["success"].mean().item(),
        }
    return pd.DataFrame.from_dict(table, orient="index").rename_axis("edit")


def kept_exactly(edits: Edits) -> pd.DataFrame:
    """Return, for each photo, the percentage of pixels whose bits no edit's disruption changed.

    In all of the photo (``photo``) and in its ``background``, as `photo_change` defines it.
    """
    same = (edits.perturbed == edits.photos[:, None]).all(2).all(1).float().flatten(1)
    outside = (edits.saliency_map < BACKGROUND).float().flatten(1)
    share = {"photo": same.mean(1), "background": (same * outside).sum(1) / outside.sum(1)}
    return pd.DataFrame({name: 100 * value.cpu().numpy() for name, value in share.items()})


def mask_quality(study: Study, batch_size: int = 16) -> tuple[pd.DataFrame, Tensor, Tensor]:
    """Measure the saliency maps of the shipped faces against their landmarks.

    Returns:
        A row per face, worst first: ``face_id``, ``inside`` (mean saliency in the ellipse of the
        face, `Faces.face_ellipse`) and ``corners`` (mean in the two top corners, an eighth of the
        side each); and, in the same order, the photos (N, 3, H, W) and maps (N, 1, H, W).

    Raises:
        SalattackError: faces without landmarks.
    """
    batches = [(photos, study.saliency(photos)) for photos, _, _ in study.batches(batch_size)]
    photos, maps = (torch.cat(parts).cpu() for parts in zip(*batches, strict=True))
    corner = maps.shape[-1] // 8
    top = maps[..., :corner, :]
    scores = pd.DataFrame(
        {
            "face_id": study.faces.ids,
            "inside": [m[0, study.faces.face_ellipse(i)].mean().item() for i, m in enumerate(maps)],
            "corners": torch.cat([top[..., :corner], top[..., -corner:]], -1).flatten(1).mean(1),
        }
    ).sort_values("inside")
    order = scores.index.tolist()
    return scores.reset_index(drop=True), photos[order], maps[order]
