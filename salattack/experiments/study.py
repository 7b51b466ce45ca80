"""Faces and models together, and Algorithm 1 run on a batch of them."""

import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
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
from ..metrics import unit_features
from ..models import Models, load_models
from ..regions import REGIONS

COMPUTE = ("float32", "bfloat16")
COARSE = 0.01  # a start in [-1, 1] that bfloat16's steps, 0.004 to 0.008 there, still show


@dataclass(frozen=True, kw_only=True)
class Study(Models):
    """What an experiment needs: models, faces, and the arithmetic of the attack.

    ``compute`` "bfloat16" is for the generator's arithmetic inside the attack, about twice as fast
    where the processor has it. The image, its step and every measure stay float32. Minimum-norm
    attackers, and those that start within `COARSE` of the photo without a blur, do not use it.
    """

    faces: Faces
    compute: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        if self.compute not in COMPUTE:
            raise one_of("arithmetic", self.compute, COMPUTE)

    def settings(self) -> dict[str, object]:
        """Return what every result depends on besides faces and attacks, as plain values."""
        return {
            **self.origin,
            "image_size": self.faces.image_size,
            "compute": self.compute,
            "device": self.device.type,
            "code": _code(),
            "torch": torch.__version__,
        }

    def readable(self) -> "Study":
        """Return this study with faces that can all be read, see `Faces.readable`."""
        return replace(self, faces=self.faces.readable())

    def batches(self, batch_size: int = 10) -> Iterator[tuple[Tensor, Tensor, list[str]]]:
        """Yield photos (n, 3, H, W) in [-1, 1] and labels (n, 5) on the device, and face ids."""
        for images, labels, ids in DataLoader(self.faces, batch_size=batch_size):
            yield images.to(self.device), labels.to(self.device), list(ids)

    def disrupt(
        self,
        photos: Tensor,
        target: Targets,
        attack: Attack,
        saliency_map: Tensor,
        on_gradient: Callable[[int], object] | None = None,
    ) -> Tensor:
        """Run Algorithm 1 on (N, 3, H, W) photos I_org in [-1, 1]: return I_ptb, alike.

        The ``region`` is made of M (N, 1, H, W) in [0, 1]; the rest is as in `Attack`. A batch that
        does not fit into the memory is halved.

        Raises:
            SalattackError: a loss on features, with a saliency model that gives none; a batch too
                large for the memory, with a shared attack.
        """
        region = features = None
        try:
            if attack.region != "everywhere":
                region = REGIONS[attack.region](photos, self.generate(photos, target), saliency_map)
            if attack.loss == "features":
                if not hasattr(self.saliency, "feature_maps"):
                    raise SalattackError("this saliency model has no features; use pfan-light")
                features = partial(unit_features, features=self.saliency.feature_maps)
            # bfloat16 has 8 bits: it cannot see the loss's slope ±0.001 beside the photo.
            small = attack.until is not None or (not attack.blurs and attack.start < COARSE)
            g = self.all_edits if self.compute == "float32" or small else self._coarse
            return attack(g, photos, target, region, features=features, on_gradient=on_gradient)
        except RuntimeError as error:
            if len(photos) == 1 or not _out_of_memory(error):
                raise
        problem = f"{len(photos)} images at a time are too many for the memory"
        if attack.shared:
            problem += ", and a shared perturbation needs them together"
            raise SalattackError(f"{problem}; give a smaller batch_size or fewer faces")
        half = len(photos) // 2
        said = f"{problem}: going on with {half}; give a smaller batch_size"
        warnings.warn(said, stacklevel=2)
        parts = zip(*(_split(t, half) for t in (photos, target, saliency_map)), strict=True)
        return torch.cat([self.disrupt(x, t, attack, m, on_gradient) for x, t, m in parts])

    def _coarse(self, images: Tensor, target: Targets) -> Tensor:
        with torch.autocast(self.device.type, getattr(torch, self.compute)):
            return self.all_edits(images, target).float()


@cache
def _code() -> str:
    """Return a checksum of the code that measures, so that a ledger never mixes two versions."""
    package = Path(__file__).parents[1]
    folders = (package, *(package / name for name in ("experiments", "generators", "saliency")))
    files = (path for folder in folders for path in sorted(folder.glob("*.py")))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


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
    image_size: int | None = None,
    compute: str = "float32",
    split: str | None = None,
    seed: int = 0,
    **models_by_name: object,
) -> Study:
    """Load what an experiment needs, by name: see `load_faces` and `Study`.

    ``first`` names faces to put first. ``image_size`` is the side in pixels; None takes what the
    generator was trained for. The rest is as in `load_models`: ``generator``,
    ``generator_weights``, ``generator_options``, ``saliency``, ``saliency_weights``, ``device``.

    Raises:
        SalattackError: an unknown name, or files that do not fit.
    """
    models = load_models(**models_by_name)
    size = models.image_size if image_size is None else image_size
    if size < 16 or size % 4:
        raise SalattackError(f"image_size must be a multiple of 4 from 16 up, got {size}")
    sample = {"kind": kind, "n_images": n_images, "first": first, "split": split, "seed": seed}
    chosen = load_faces(faces, image_size=size, **sample)
    return Study(faces=chosen, compute=compute, **vars(models))
