"""Face-editing generators g(·): what an attack sees of them, and the registry of known ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from torch import Tensor

from ..assets import ASSETS
from ..errors import one_of
from ..weights import Model
from .stargan import ATTRIBUTES, StarGAN, edit_labels

__all__ = ["ATTRIBUTES", "GENERATORS", "Generator", "StarGAN", "edit_labels", "load_generator"]


class Generator(Protocol):
    """All that an attack sees of a face-editing model."""

    def __call__(self, images: Tensor, target: Tensor) -> Tensor:
        """Edit (N, 3, H, W) images in [-1, 1] towards N targets; same shape and range."""
        ...


def _parameters_only(state: Mapping) -> Mapping:
    # The published file's running statistics never made the published pictures: see StarGAN.
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return {key: value for key, value in state.items() if not key.endswith(statistics)}


def _stargan_like(state: Mapping) -> StarGAN:
    first = state.get("main.0.weight")
    if first is None or first.ndim != 4 or first.shape[1] <= 3:
        return StarGAN()  # does not fit, and `fit` says how
    return StarGAN(conv_dim=first.shape[0], c_dim=first.shape[1] - 3)


def _published(size: int) -> Model:
    asset = ASSETS[f"stargan-celeba-{size}"]
    return Model(
        build=_stargan_like,
        prepare=_parameters_only,
        file=asset.path.name,
        sha256=asset.checksum.removeprefix("sha256:"),
        licence=asset.licence,
        source=f"StarGAN's celeba-{size}x{size}-5attrs.zip ({asset.address})",
        shipped=False,
        asset=asset.name,
        image_size=size,
    )


GENERATORS: dict[str, Model] = {
    "stargan-celeba128-w32": Model(
        build=_stargan_like,
        prepare=_parameters_only,
        file="stargan-celeba128-w32.safetensors",
        sha256="efd166b243f7dc964fa1c587eb61626ced1fa7cf67bc040e25a35077c61585bf",
        licence="research use: trained on CelebA crops (non-commercial)",
        source="this package",
        shipped=True,
        image_size=128,
    ),
    "stargan-celeba-128": _published(128),
    "stargan-celeba-256": _published(256),
}


def load_generator(
    name: str = "stargan-celeba128-w32", weights: str | Path | None = None, device: str = "auto"
) -> StarGAN:
    """Return a frozen generator of the registry `GENERATORS`.

    Args:
        name: a key of `GENERATORS`.
        weights: a StarGAN file (.safetensors or torch checkpoint) of any ``conv_dim``. Without
            it a published model is taken from the cache (`salattack assets fetch`).
        device: "auto" takes CUDA where there is one.

    Raises:
        SalattackError: an unknown name or device, a missing, damaged or misfitting file.
    """
    if name not in GENERATORS:
        raise one_of("generator", name, GENERATORS)
    return GENERATORS[name].load(weights, device)
