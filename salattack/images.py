"""Conversions between [-1, 1] tensors, 8-bit pixels and Pillow's pictures."""

import zlib

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .errors import SalattackError

TYPES = (torch.float32, torch.float64)


def to_tensor(image: Image.Image) -> Tensor:
    """Return an RGB picture as a (3, H, W) float32 tensor in [-1, 1]."""
    return from_uint8(torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1))


def from_uint8(pixels: Tensor) -> Tensor:
    """Return 8-bit pixels, any shape, as float32 in [-1, 1]."""
    return pixels.contiguous().float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Return images in [-1, 1], any shape, as uint8 in 0..255, rounded and clipped."""
    return ((images.detach() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_pil(image: Tensor) -> Image.Image:
    """Return a (3, H, W) tensor in [-1, 1] as an RGB picture."""
    return Image.fromarray(to_uint8(image).permute(1, 2, 0).cpu().numpy())


def as_saved(images: Tensor) -> Tensor:
    """Round (N, 3, H, W) images in [-1, 1] to the 8 bits of a lossless file and back."""
    return from_uint8(to_uint8(images)).to(images)


def checked_images(images: Tensor) -> Tensor:
    """Check that images are (N, 3, H, W) in [-1, 1], and return them detached.

    Raises:
        SalattackError: another shape or type, no images, NaN, or values out of range.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype not in TYPES:
        raise SalattackError(
            "images must be (N, 3, H, W) of float32 or float64, got "
            f"{tuple(images.shape)} of {images.dtype}"
        )
    if not len(images):
        raise SalattackError("the batch holds no images")
    if not torch.isfinite(images).all():
        raise SalattackError("the images contain NaN or infinity")
    if images.min() < -1 or images.max() > 1:
        raise SalattackError(
            f"the images must lie in [-1, 1], found [{images.min():.3g}, {images.max():.3g}]; "
            "divide 8-bit values by 127.5 and subtract 1"
        )
    return images.detach()


def uniform_noise(images: Tensor, seed: int) -> Tensor:
    """Return noise in [-1, 1] like the images (N, C, H, W).

    The noise depends only on the seed and on each image's pixels. It is drawn on the CPU, so every
    device gets the same noise.
    """
    draws = []
    for image in images.cpu():
        key = zlib.crc32(image.contiguous().numpy().tobytes(), seed & 0xFFFFFFFF)
        source = torch.Generator().manual_seed(key)
        draws.append(torch.rand(image.shape, generator=source) * 2 - 1)
    return torch.stack(draws).to(images)
