"""Layers of the published networks, by ways that suit an attack."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class InstanceNorm2d(nn.InstanceNorm2d):
    """torch's own, by another way where the channels of a pixel lie together on a CPU.

    There torch's would copy the batch to the other layout and leave it so, and every convolution
    behind it would copy it back: a fifth of an attack's time. Batch statistics of one image are
    its instance statistics, and ``batch_norm`` knows both layouts.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W) by the mean and variance of each image's channels.

        Images of more than 256×256 take torch's way: over 512×512 pixels the sums of
        ``batch_norm`` are off by 2e-4 of the deviation, torch's by 5e-7.
        """
        quick = x.is_contiguous(memory_format=torch.channels_last) and x[0, 0].numel() <= 2**16
        if x.device.type != "cpu" or not quick:
            return super().forward(x)
        images = x.split(1) if len(x) > 1 else [x]  # one image's gradient need not be put together
        how = {"training": True, "momentum": 0.0, "eps": self.eps}
        parts = [F.batch_norm(i, None, None, self.weight, self.bias, **how) for i in images]
        return torch.cat(parts) if len(parts) > 1 else parts[0]


class ImageConv2d(nn.Conv2d):
    """The convolution that sees the image: in float32 also where the rest computes in bfloat16.

    Rounded to bfloat16, the image and its gradient lose 1.3 % of the first step's signs more.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, H, W)."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x)


class Residual(nn.Module):
    """Layers around an identity skip, under the ``name`` that the published files give them."""

    def __init__(self, name: str, one: list[nn.Module], two: list[nn.Module]) -> None:
        super().__init__()
        self.add_module(name, nn.Sequential(*one, *two[:-1]))  # no ReLU behind the second

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        (layers,) = self.children()
        return x + layers(x)


def normalised(conv: nn.Module, affine: bool = False) -> list[nn.Module]:
    """Return a convolution with the instance normalisation and the ReLU behind it."""
    return [conv, InstanceNorm2d(conv.out_channels, affine=affine), nn.ReLU()]


def reflecting(a: int, b: int, size: int = 3, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    """Return a convolution of a to b channels that pads by reflection; of RGB, the image's own."""
    kind = ImageConv2d if a == 3 else nn.Conv2d
    return kind(a, b, size, stride, size // 2, bias=bias, padding_mode="reflect")


def shortcut(a: int, b: int) -> nn.Module:
    """Return what carries a channels past a residual block of b channels."""
    return nn.Conv2d(a, b, 1, bias=False) if a != b else nn.Identity()
