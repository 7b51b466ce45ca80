"""Saliency f_sa(·): where the salient face is, as a soft map (Eq. 1), and the known models."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn

from ..assets import ASSETS
from ..errors import SalattackError, one_of
from ..weights import Model
from .pfan import PFAN, PFANLight, PyramidAttention

__all__ = [
    "SALIENCY_MODELS",
    "DrawnMask",
    "Saliency",
    "SaliencyModel",
    "load_saliency",
    "read_mask",
]


class Saliency(Protocol):
    """All that an attack sees of a saliency model."""

    def __call__(self, images: Tensor) -> Tensor:
        """Map (N, 3, H, W) images in [-1, 1] to soft maps (N, 1, H, W) in [0, 1]."""
        ...


class SaliencyModel(nn.Module):
    """A network with its preprocessing: from images of any size to maps of that size.

    Args:
        net: the network; it says how its input is normalised (Eq. 1) and made square.
        size: side in pixels of the square that it works at.
    """

    def __init__(self, net: PyramidAttention, size: int) -> None:
        super().__init__()
        self.net, self.size = net, size
        self.to(memory_format=torch.channels_last).requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return the soft saliency map, never binarised.

        Args:
            images: (N, 3, H, W) in [-1, 1], any size.

        Returns:
            (N, 1, H, W) in [0, 1].

        Raises:
            SalattackError: not a batch of RGB images.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise SalattackError(f"images must be (N, 3, H, W), not {tuple(images.shape)}")
        height, width = images.shape[-2:]
        top = left = 0
        if self.net.pads:
            side = max(height, width)
            top, left = (side - height) // 2, (side - width) // 2
            border = (left, side - width - left, top, side - height - top)
            images = F.pad(images, border, value=-1.0)  # black
        maps = self.net(self._normalise(_resize(images, (self.size, self.size))))
        maps = _resize(maps, images.shape[-2:]).clamp(0, 1)
        return maps[..., top : top + height, left : left + width]

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Return the backbone's features at five depths, for a perceptual distance.

        Args:
            images: (N, 3, H, W) in [-1, 1], H and W divisible by 32; taken at their own size.

        Returns:
            Five tensors (N, C, H / s, W / s); s = 2, 4, 8, 16, 32 for pfan-light.
        """
        return self.net.levels(self._normalise(images))

    def _normalise(self, images: Tensor) -> Tensor:
        """Eq. 1: n(I, mu, sigma), with I in [0, 1]."""
        mu, sigma = (images.new_tensor(v)[:, None, None] for v in (self.net.mean, self.net.std))
        return ((images + 1) / 2 - mu) / sigma


class DrawnMask(nn.Module):
    """One mask for every face, in the geometry of the aligned crops; in place of a network.

    Args:
        size: height and width of the picture that holds it.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("mask", torch.zeros(1, 1, *size))

    def forward(self, images: Tensor) -> Tensor:
        """Return the mask at the images' size, (N, 1, H, W) in [0, 1]."""
        return _resize(self.mask, images.shape[-2:]).clamp(0, 1).expand(len(images), -1, -1, -1)


def read_mask(path: Path) -> Image.Image:
    """Return a mask's picture, upright and grey: black 0, white 1.

    Raises:
        SalattackError: no picture there that can be read.
    """
    try:
        with Image.open(path) as picture:
            return ImageOps.exif_transpose(picture).convert("L")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise SalattackError(f"{path} cannot be read as a mask; give a grey picture") from error


def _drawn(path: Path) -> dict:
    """Read a mask as the state that `DrawnMask` holds."""
    grey = np.asarray(read_mask(path), dtype=np.float32) / 255
    return {"mask": torch.from_numpy(grey)[None, None]}


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", antialias=True)


def _under_model(state: Mapping) -> Mapping:
    """Return the parameters of the port's checkpoint, which holds scores beside them."""
    return state.get("model", state)


SALIENCY_MODELS: dict[str, Model] = {
    "pfan-light": Model(
        build=lambda _: PFANLight(),
        file="pfan-light.safetensors",
        sha256="6ba9778f68424f962b7b1c946ec5b934f3daa20816b5612985704eaa8e3aa73d",
        licence="research use: trained on DUTS-TR and CelebA crops (non-commercial)",
        source="this package",
        shipped=True,
        image_size=224,  # trained at 192; finer maps, better on ECSSD too
    ),
    "pfan-duts": Model(
        build=lambda _: PFAN(),
        prepare=_under_model,
        file=ASSETS["pfan-duts"].path.name,
        sha256=None,
        licence=ASSETS["pfan-duts"].licence,
        source=ASSETS["pfan-duts"].address,
        shipped=False,
        asset="pfan-duts",
        image_size=256,
    ),
    "mask": Model(
        build=lambda state: DrawnMask(state["mask"].shape[-2:]),
        read=_drawn,
        file="a mask (any grey picture)",
        sha256=None,
        licence="yours",
        source="yours",
        shipped=False,
        image_size=128,
    ),
}


def load_saliency(
    name: str = "pfan-light", weights: str | Path | None = None, device: str = "auto"
) -> SaliencyModel | DrawnMask:
    """Return a frozen saliency model of the registry `SALIENCY_MODELS`.

    Args:
        name: ``pfan-light`` (shipped), ``pfan-duts`` (the widely used port, at full width), or
            ``mask``: the grey picture ``weights``, white where every face may change.
        weights: a file (.safetensors or torch checkpoint) to use. Without it ``pfan-duts`` is
            taken from the cache (`salattack assets fetch`).
        device: "auto" takes CUDA where there is one.

    Returns:
        A module from images (N, 3, H, W) in [-1, 1] to soft maps (N, 1, H, W) in [0, 1].

    Raises:
        SalattackError: an unknown name or device, a missing, damaged or misfitting file.
    """
    if name not in SALIENCY_MODELS:
        raise one_of("saliency model", name, SALIENCY_MODELS)
    entry = SALIENCY_MODELS[name]
    # Scores beside the published parameters are NumPy scalars: plain numbers, no code.
    scalar = np.float64(0).__reduce__()[0]
    number = [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, type(np.dtype("f8"))]
    with torch.serialization.safe_globals(number):
        net = entry.load(weights, device)
    if isinstance(net, DrawnMask):
        return net
    return SaliencyModel(net, entry.image_size)
