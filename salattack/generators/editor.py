"""What the face-editing networks of this package share: checked inputs, files and layers."""

import re
from collections.abc import Callable, Mapping
from typing import Self

import torch
import torch.nn.functional as F
from torch import Size, Tensor, nn

from ..edits import EditSet
from ..errors import SalattackError

WRAPPERS = ("generator", "G", "netG", "state_dict")
# What files of old PyTorch hold of networks that always normalise by the instance's statistics.
STATISTICS = r"\.(running_mean|running_var|num_batches_tracked)$"


def unwrapped(state: Mapping) -> dict:
    """Return the generator's parameters of a checkpoint, without DataParallel's "module."."""
    inner = next((state[w] for w in WRAPPERS if isinstance(state.get(w), Mapping)), state)
    return {str(key).removeprefix("module."): value for key, value in inner.items()}


class Editor(nn.Module):
    """A generator g(·) that files of any width fill; a subclass gives the attributes."""

    _edit: Callable[..., Tensor]  # what `forward` says; it gets no target without ``columns``
    _sizes: Callable[[Mapping[str, Size]], tuple]  # a file's shapes to the constructor's arguments

    divisor: int = 4  # of both sides of an image
    columns: int | None = None  # length of a target's row; None where the target is ignored
    asked: str = ""  # what such a row holds, for messages
    edits: EditSet | None = None  # to ask for; None for the one edit that the weights make
    renamed: tuple[tuple[str, str], ...] = ()  # regular expressions of a file's names, and ours
    dropped: str = "(?!)"  # regular expression of the names of what makes no picture

    def forward(self, images: Tensor, target: Tensor | None = None, **options: object) -> Tensor:
        """Edit (N, 3, H, W) images in [-1, 1]; same shape and range.

        ``target`` is (N, ``columns``), see ``asked``; options are those of the network's `_edit`.
        Another target, or sides that ``divisor`` does not divide, are a SalattackError.
        """
        name, (height, width) = type(self).__name__, images.shape[-2:]
        if height % self.divisor or width % self.divisor:
            wanted = f"{name} takes images whose sides are multiples of {self.divisor}"
            raise SalattackError(f"{wanted}, got {width}×{height}; choose another image_size")
        if self.columns is None:
            return self._edit(images)
        wanted, shape = (len(images), self.columns), getattr(target, "shape", None)
        if shape != wanted:
            found = type(target).__name__ if shape is None else tuple(shape)
            advice = "see docs/own_generator.md for generators with targets of their own"
            problem = f"{name} takes a target of {wanted}, {self.asked}, got {found}"
            raise SalattackError(f"{problem}; {advice}")
        return self._edit(images, target.to(images), **options)

    @classmethod
    def prepare(cls, state: Mapping) -> dict:
        """Return the parameters that a file holds under our names."""
        named = {}
        for key, value in unwrapped(state).items():
            for theirs, ours in cls.renamed:
                key = re.sub(theirs, ours, key)
            if not re.search(cls.dropped, key):
                named[key] = value
        return named

    @classmethod
    def like(cls, state: Mapping) -> Self:
        """Return the network of a state dict's sizes, or the published one if it tells none."""
        shapes = {key: value.shape for key, value in state.items() if torch.is_tensor(value)}
        try:
            network = cls(*cls._sizes(shapes))
            if network.columns is None or network.columns > 0:
                return network
        except (KeyError, ValueError, RuntimeError):
            pass
        return cls()  # another network's state: `fit` says how it differs


def joined(x: Tensor, target: Tensor) -> Tensor:
    """Return x (N, C, H, W) and behind it each column of a target (N, K) as a constant channel."""
    return torch.cat([x, target[:, :, None, None].expand(-1, -1, *x.shape[-2:])], dim=1)


class InstanceNorm2d(nn.InstanceNorm2d):
    """Instance normalisation that stays in channels-last layout on a CPU.

    torch's version converts the batch to the other layout, and every following convolution converts
    it back: a fifth of an attack's time. ``batch_norm`` knows both layouts, and the batch
    statistics of one image are its instance statistics.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W) by the mean and variance of each image's channels.

        Images of more than 256×256 use torch's version: over 512×512 pixels the sums of
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
        """Add what the layers make of (N, C, H, W)."""
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
