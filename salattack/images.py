"""Conversions between [-1, 1] tensors, 8-bit pixels and Pillow's pictures."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_tensor(image: Image.Image) -> Tensor:
    """Return an RGB picture as a (3, H, W) float32 tensor in [-1, 1]."""
    return from_uint8(torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1))


def from_uint8(pixels: Tensor) -> Tensor:
    """Return 8-bit pixels, any shape, as float32 in [-1, 1]."""
    return pixels.contiguous().float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Return images in [-1, 1], any shape, as uint8 in 0..255: rounded, and clipped if outside."""
    return ((images.detach() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_pil(image: Tensor) -> Image.Image:
    """Return a (3, H, W) tensor in [-1, 1] as an RGB picture."""
    return Image.fromarray(to_uint8(image).permute(1, 2, 0).cpu().numpy())


def as_saved(images: Tensor) -> Tensor:
    """Round (N, 3, H, W) images in [-1, 1] to the 8 bits of a lossless file and back."""
    return from_uint8(to_uint8(images)).to(images)
