"""Face-editing generators g(·): what an attack sees of them, and the registry of known ones."""

import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Protocol

from torch import Tensor, nn

from .. import assets
from ..edits import EditSet
from ..errors import one_of
from ..weights import Model
from . import attgan, cyclegan, ganimation, stargan, stargan_v2
from .aging import AgingGAN
from .animegan import AnimeGAN
from .attgan import AttGAN
from .cartoongan import CartoonGAN
from .cyclegan import CycleGAN
from .dpr import DPR
from .ensemble import Ensemble
from .ganimation import GANimation
from .inputs import without_statistics
from .published import PUBLISHED
from .stargan import ATTRIBUTES, StarGAN, edit_labels
from .stargan_v2 import StarGANv2

__all__ = [
    "ATTRIBUTES",
    "DPR",
    "GENERATORS",
    "AgingGAN",
    "AnimeGAN",
    "AttGAN",
    "CartoonGAN",
    "CycleGAN",
    "EditSet",
    "Ensemble",
    "GANimation",
    "Generator",
    "StarGAN",
    "StarGANv2",
    "edit_labels",
    "edits_of",
    "load_generator",
]


class Generator(Protocol):
    """All that an attack sees of a face-editing model."""

    def __call__(self, images: Tensor, target: Tensor) -> Tensor:
        """Edit (N, 3, H, W) images in [-1, 1]; same shape and range.

        ``target`` has one row an image, of what the model takes: StarGAN (N, 5) labels, AttGAN
        (N, 13) attributes, GANimation (N, 17) action units, StarGAN v2 (N, 64) style codes;
        CycleGAN ignores it.
        """
        ...


def _stargan_like(state: Mapping) -> StarGAN:
    first = state.get("main.0.weight")
    if first is None or first.ndim != 4 or first.shape[1] <= 3:
        return StarGAN()  # does not fit, and `fit` says how
    return StarGAN(conv_dim=first.shape[0], c_dim=first.shape[1] - 3)


def _published(
    name: str, size: int, build: Callable, prepare: Callable, of: str, edits: EditSet
) -> Model:
    asset = assets.known(name)
    return Model(
        build=build,
        prepare=prepare,
        file=asset.path.name,
        sha256=asset.checksum.removeprefix("sha256:") if asset.checksum else None,
        licence=asset.licence,
        source=f"{of} ({asset.address})",
        shipped=False,
        asset=name,
        image_size=size,
        edits=edits,
    )


def _stargan(size: int) -> Model:
    archive = f"StarGAN's celeba-{size}x{size}-5attrs.zip"
    name, edits = f"stargan-celeba-{size}", stargan.EDITS
    return _published(name, size, _stargan_like, without_statistics, archive, edits)


def _other(
    name: str, size: int, adapter: ModuleType, of: str, edits: EditSet | None = None
) -> Model:
    edits = edits or adapter.EDITS
    return _published(name, size, adapter.like, adapter.prepare, of, edits)


def _shipped(name: str, build: Callable, prepare: Callable, sha256: str, edits: EditSet) -> Model:
    return Model(
        build=build,
        prepare=prepare,
        file=f"{name}.safetensors",
        sha256=sha256,
        licence="research use: trained on CelebA crops (non-commercial)",
        source="this package",
        shipped=True,
        image_size=128,
        edits=edits,
    )


GENERATORS: dict[str, Model] = {
    "stargan-celeba128-w32": _shipped(
        "stargan-celeba128-w32",
        _stargan_like,
        without_statistics,
        "e420d9f3b8ce126ec300c0684b847bda44622b075593b00a64c5b9b988bf9e26",
        stargan.EDITS,
    ),
    "cyclegan-blond128-w32": _shipped(
        "cyclegan-blond128-w32",
        cyclegan.like,
        cyclegan.prepare,
        "2c25f32baebf394a73cc2e97df9667eac0e16e7d40141ac3d38d6b5f81a5ce5a",
        cyclegan.only("Blond_Hair"),
    ),
} | {
    model.asset: model
    for model in (
        _stargan(128),
        _stargan(256),
        _other("stargan-v2-celeba-hq-256", 256, stargan_v2, "StarGAN v2's CelebA-HQ networks"),
        _other("attgan-celeba-128", 128, attgan, "AttGAN-PyTorch's 128_shortcut1_inject1_none"),
        _other("ganimation-celeba-128", 128, ganimation, "ganimation_replicate's ckpts/celebA"),
        _other(
            "cyclegan-vangogh-256",
            256,
            cyclegan,
            "CycleGAN's style_vangogh",
            cyclegan.only("Van_Gogh"),
        ),
    )
}
GENERATORS |= PUBLISHED


def _add_installed() -> None:
    """Add what installed packages declare as entry points of "salattack.generators"."""
    for found in entry_points(group="salattack.generators"):
        if found.name in GENERATORS:
            continue
        try:
            GENERATORS[found.name] = found.load()
        except Exception as error:  # another package's fault must not stop this one
            text = f"the generator {found.name!r} of an installed package cannot be used: {error}"
            warnings.warn(text, stacklevel=2)


_add_installed()


def edits_of(name: str) -> EditSet:
    """Return what the generator ``name`` of the registry can be asked for.

    Raises:
        SalattackError: an unknown name.
    """
    if name not in GENERATORS:
        raise one_of("generator", name, GENERATORS)
    return GENERATORS[name].edits or stargan.EDITS


def load_generator(
    name: str = "stargan-celeba128-w32",
    weights: str | Path | None = None,
    device: str = "auto",
    **options: object,
) -> nn.Module:
    """Return a frozen generator (see `Generator`) of the registry `GENERATORS`.

    Args:
        name: a key of `GENERATORS`.
        weights: a file of that architecture (.safetensors or torch checkpoint), of any width.
            Without it a published model is taken from the cache (`salattack assets fetch`).
        device: "auto" takes CUDA where there is one.
        options: what the entry's ``load`` takes besides; for "onnx" layout="nchw" or "nhwc", and
            value_range=(lowest, highest) of its pixels.

    Raises:
        SalattackError: an unknown name, device or option, a missing, damaged or misfitting file.
    """
    if name not in GENERATORS:
        raise one_of("generator", name, GENERATORS)
    known = list(signature(GENERATORS[name].load).parameters)[2:]
    for option in set(options) - set(known):
        raise one_of(f"option of {name}", option, known or ["none"])
    return GENERATORS[name].load(weights, device, **options)
