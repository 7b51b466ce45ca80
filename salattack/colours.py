"""The colour spaces in which an attack can change a photo: RGB, or a and b of CIE Lab."""

from functools import lru_cache

import torch
from kornia.color import lab_to_rgb, rgb_to_lab
from torch import Tensor


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # a tensor made in inference mode cannot be used for gradients later
def per_channel(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return one number per channel on a device; cached, so that they are copied only once."""
    return torch.tensor(values, dtype=dtype, device=device)[:, None, None]


def same(images: Tensor) -> Tensor:
    """Return the images unchanged."""
    return images


def _to_lab(images: Tensor) -> Tensor:
    """Return Lab with L - 50 in units of 50, and a and b in units of 128: about [-1, 1]."""
    lab = rgb_to_lab((images + 1) / 2)
    middle, unit = (per_channel(values, lab.dtype, lab.device) for values in _LAB)
    return (lab - middle) / unit


def _from_lab(lab: Tensor) -> Tensor:
    middle, unit = (per_channel(values, lab.dtype, lab.device) for values in _LAB)
    return lab_to_rgb(lab * unit + middle) * 2 - 1


_LAB = ((50.0, 0.0, 0.0), (50.0, 128.0, 128.0))  # middle and half-width of L, a and b

# Name → into the space, out of it, and the channels of it that may change.
SPACES = {
    "rgb": (same, same, (1.0, 1.0, 1.0)),
    "ab": (_to_lab, _from_lab, (0.0, 1.0, 1.0)),
}
