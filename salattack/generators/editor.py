"""What the face-editing networks of this package share: checks of their inputs, and files."""

from collections.abc import Mapping
from typing import Self

import torch
from torch import Size, Tensor, nn

from ..edits import EditSet
from ..errors import SalattackError

WRAPPERS = ("generator", "G", "netG", "state_dict")


def unwrapped(state: Mapping) -> dict:
    """Return the generator's parameters of a checkpoint, without DataParallel's "module."."""
    inner = next((state[w] for w in WRAPPERS if isinstance(state.get(w), Mapping)), state)
    return {str(key).removeprefix("module."): value for key, value in inner.items()}


def without_statistics(state: Mapping) -> dict:
    """Drop running statistics too, for networks that always normalise by the instance's own."""
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return {key: value for key, value in unwrapped(state).items() if not key.endswith(statistics)}


class Editor(nn.Module):
    """A generator g(·) that files of any width fill.

    A subclass gives the attributes, `_edit` and `_sizes`.

    Attributes:
        divisor: of both sides of an image.
        columns: length of a target's row; None for a network that ignores its target.
        asked: what such a row holds, for messages.
        edits: what the network can be asked for; None for the one edit that its weights make.
        prepare: from what a file holds to a state dict with our names and nothing unused.
    """

    divisor: int = 4
    columns: int | None = None
    asked: str = ""
    edits: EditSet | None = None
    prepare = staticmethod(unwrapped)

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
        """Do what `forward` says; a network without ``columns`` is given no target."""
        raise NotImplementedError

    @staticmethod
    def _sizes(shapes: Mapping[str, Size]) -> tuple:
        """Return the constructor's arguments for a state dict's shapes, by parameter."""
        raise NotImplementedError

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
