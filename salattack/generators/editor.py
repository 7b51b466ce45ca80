"""What the face-editing networks of this package share: checks of their inputs, and files."""

from collections.abc import Mapping
from typing import Self

import torch
from torch import Size, Tensor, nn

from ..edits import EditSet
from ..errors import SalattackError

WRAPPERS = ("generator", "G", "netG", "state_dict")


class Editor(nn.Module):
    """A generator g(·) that files of any width fill.

    A subclass gives the attributes, `_edit` and `_sizes`, and `prepare` where its files need it.

    Attributes:
        divisor: of both sides of an image.
        columns: length of a target's row; None for a network that ignores its target.
        asked: what such a row holds, for messages.
        edits: what the network can be asked for; None for the one edit that its weights make.
    """

    divisor: int = 4
    columns: int | None = None
    asked: str = ""
    edits: EditSet | None = None

    def forward(self, images: Tensor, target: Tensor | None = None, **options: object) -> Tensor:
        """Edit (N, 3, H, W) images in [-1, 1]; same shape and range.

        ``target`` is (N, ``columns``), see ``asked``; options are those of the network's `_edit`.

        Raises:
            SalattackError: sides that ``divisor`` does not divide, a target of another shape.
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

    def _edit(self, images: Tensor, target: Tensor) -> Tensor:
        """Do what `forward` says for images and a target that fit; without ``columns``, no target.

        The target has the images' type and device.
        """
        raise NotImplementedError

    @staticmethod
    def prepare(state: Mapping) -> Mapping:
        """Return the state dict of what a file holds: our names, and nothing unused."""
        return dict(state)

    @staticmethod
    def _sizes(shapes: Mapping[str, Size]) -> tuple:
        """Return the constructor's arguments for a state dict's shapes, by parameter."""
        raise NotImplementedError

    @classmethod
    def like(cls, state: Mapping) -> Self:
        """Return the network of a state dict's sizes, or the published one if it tells none."""
        shapes = {key: value.shape for key, value in state.items() if torch.is_tensor(value)}
        try:
            return cls(*cls._sizes(shapes))
        except (KeyError, ValueError, RuntimeError):  # another network's: `fit` says how it differs
            return cls()


def joined(x: Tensor, target: Tensor) -> Tensor:
    """Return x (N, C, H, W) and behind it each column of a target (N, K) as a constant channel."""
    return torch.cat([x, target[:, :, None, None].expand(-1, -1, *x.shape[-2:])], dim=1)


def positive(size: int) -> int:
    """Return a size of `Editor._sizes`; a ValueError says that no network has it."""
    if size < 1:
        raise ValueError(size)
    return size


def unwrapped(state: Mapping) -> dict:
    """Return the generator's parameters of a checkpoint, without DataParallel's "module."."""
    inner = next((state[w] for w in WRAPPERS if isinstance(state.get(w), Mapping)), state)
    return {str(key).removeprefix("module."): value for key, value in inner.items()}


def without_statistics(state: Mapping) -> dict:
    """Drop running statistics, for networks that always normalise by the instance's own."""
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return {key: value for key, value in state.items() if not str(key).endswith(statistics)}
