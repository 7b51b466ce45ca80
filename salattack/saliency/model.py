"""f_sa(·): a saliency network behind Eq. 1's normalisation, or a drawn mask."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import SalattackError


class SaliencyModel(nn.Module):
    """A network from images of any size to maps of that size; a subclass gives the attributes."""

    mean: tuple[float, float, float]  # mu of Eq. 1, for R, G and B in [0, 1]
    std: tuple[float, float, float]  # sigma of Eq. 1
    size: int  # side in pixels of the square that it works at, a multiple of 32
    pads: bool  # whether it was trained on images zero-padded to a square; else on stretched ones
    levels: Callable[[Tensor], list[Tensor]]  # normalised images to five feature maps
    decode: Callable[[list[Tensor]], Tensor]  # these to the map before its sigmoid, (N, 1, h, w)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Map (N, 3, H, W) images in [-1, 1] to soft maps (N, 1, H, W) in [0, 1], never binarised.

        Images of another shape are a SalattackError.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise SalattackError(f"images must be (N, 3, H, W), not {tuple(images.shape)}")
        height, width = images.shape[-2:]
        top = left = 0
        if self.pads:
            side = max(height, width)
            top, left = (side - height) // 2, (side - width) // 2
            border = (left, side - width - left, top, side - height - top)
            images = F.pad(images, border, value=-1.0)  # black
        square = (self.size, self.size)
        logits = self.decode(self.levels(self._normalise(_resize(images, square))))
        maps = F.interpolate(logits, size=square, mode="bilinear").sigmoid()
        maps = _resize(maps, images.shape[-2:]).clamp(0, 1)
        return maps[..., top : top + height, left : left + width]

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Return the backbone's features at five depths, for a perceptual distance.

        ``images`` are (N, 3, H, W) in [-1, 1], H and W divisible by 32, taken at their own size.
        The features are (N, C, H / s, W / s); s = 2, 4, 8, 16, 32 for pfan-light.
        """
        return self.levels(self._normalise(images))

    def _normalise(self, images: Tensor) -> Tensor:
        """Eq. 1: n(I, mu, sigma), with I in [0, 1]."""
        mu, sigma = (images.new_tensor(v)[:, None, None] for v in (self.mean, self.std))
        return ((images + 1) / 2 - mu) / sigma


class DrawnMask(nn.Module):
    """One mask for every face, of height and width ``size``, in the geometry of the crops."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("mask", torch.zeros(1, 1, *size))

    def forward(self, images: Tensor) -> Tensor:
        """Return the mask at the images' size, (N, 1, H, W) in [0, 1]."""
        return _resize(self.mask, images.shape[-2:]).clamp(0, 1).expand(len(images), -1, -1, -1)


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", antialias=True)
