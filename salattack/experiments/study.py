"""Faces, g and f_sa together: what the figures show of them, clean and disrupted."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..attacks import Attack
from ..edits import Targets
from ..errors import SalattackError, one_of
from ..faces import load_faces
from ..faces.sets import Faces
from ..generators import EditSet, edits_of, load_generator, stargan
from ..generators.registry import GENERATORS
from ..interfaces import Generator, Saliency
from ..metrics import unit_features
from ..regions import REGIONS
from ..runtime.device import pick_device
from ..runtime.files import sha256
from ..runtime.weights import Model
from ..saliency import SALIENCY_MODELS, load_saliency

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
            float32. Minimum-norm attackers, and those that start within `COARSE` of the photo
            without a blur, compute in float32 throughout.
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
        small = attack.until is not None or (not attack.blurs and attack.start < COARSE)
        fine = self.compute == "float32" or small
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


def open_study(
    *,
    faces: str = "openpeople",
    kind: str | Sequence[str] | None = None,
    n_images: int | None = None,
    first: Sequence[str] = (),
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
        first: see `load_faces`.
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
            faces,
            kind=kind,
            n_images=n_images,
            first=first,
            image_size=size,
            split=split,
            seed=seed,
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
