"""Gaussian and average blurs, and the set of blurs of Ruiz et al. (ECCV-W 2020)."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import SalattackError


@dataclass(frozen=True)
class Blur:
    """A separable low-pass filter with reflected borders, so that a constant image stays constant.

    Attributes:
        kind: "gaussian" or "average".
        kernel_size: odd width of the window in pixels.
        sigma: standard deviation in pixels (Gaussian only).
    """

    kind: Literal["gaussian", "average"]
    kernel_size: int
    sigma: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in ("gaussian", "average"):
            raise SalattackError(f"unknown blur {self.kind!r}; known: gaussian, average")
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise SalattackError(f"a blur needs an odd kernel_size ≥ 1, got {self.kernel_size}")
        if self.sigma <= 0:
            raise SalattackError(f"a blur needs sigma > 0, got {self.sigma}")

    def weights(self) -> Tensor:
        """Return the (kernel_size,) one-dimensional weights, which sum to one."""
        offset = torch.arange(self.kernel_size) - self.kernel_size // 2
        gaussian = torch.exp(-0.5 * (offset / self.sigma) ** 2)
        window = gaussian if self.kind == "gaussian" else torch.ones(self.kernel_size)
        return window / window.sum()

    def __call__(self, images: Tensor) -> Tensor:
        """Blur (N, C, H, W) images of any range; same shape, differentiable."""
        channels, pad = images.shape[1], self.kernel_size // 2
        if min(images.shape[-2:]) <= pad:
            raise SalattackError(f"a {self.kernel_size} px blur needs images above {pad} px")
        row = _row(self, images.dtype, images.device).expand(channels, 1, 1, -1)
        images = F.pad(images, (pad, pad, pad, pad), mode="reflect")
        return F.conv2d(F.conv2d(images, row, groups=channels), row.mT, groups=channels)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # a tensor made in inference mode cannot be used for gradients later
def _row(blur: Blur, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the weights on a device; cached, so that they are copied only once."""
    return blur.weights().to(device, dtype)


GAUSSIAN = Blur("gaussian", 11, 1.0)  # § IV-A: kernel 11, σ = 1

# Ruiz et al.: Gaussians of kernel 11 with growing σ, then growing averages, in this order.
BLUR_FAMILY = tuple(Blur("gaussian", 11, s) for s in (1.0, 1.5, 2.0, 2.5, 3.0)) + tuple(
    Blur("average", k) for k in (3, 5, 7, 9)
)
