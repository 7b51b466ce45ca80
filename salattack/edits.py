"""The edits of a generator by name, and the targets that ask for them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import one_of

# (generator, labels (N, 5), edit name) → targets, one row per image.
Target = Callable[[object, Tensor, str], Tensor]

# What a batch is asked for: one row per image; a tuple of such targets asks for several edits.
Targets = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class EditSet:
    """The edits of one kind of generator.

    Attributes:
        names: the edits that tables and figures use, in their order.
        target: makes the targets of an edit, see `Target`.
    """

    names: tuple[str, ...]
    target: Target

    def targets(self, generator: object, labels: Tensor, edits: Sequence[str]) -> Targets:
        """Return the targets of one edit per face, one row per image.

        A row is what ``target`` makes: a vector, a class index, or a reference image.

        Args:
            generator: the generator that takes the targets.
            labels: (N, 5) labels of the faces.
            edits: the name of an edit for each face. If all are "joint", all K ``names`` are
                asked for at once, and the result is a tuple of K targets.

        Raises:
            SalattackError: an edit that is not among ``names``.
        """
        if set(edits) == {"joint"}:
            return tuple(self.target(generator, labels, name) for name in self.names)
        for name in edits:
            if name not in self.names:
                raise one_of("edit", name, self.names)
        pairs = zip(labels.split(1), edits, strict=True)
        return torch.cat([self.target(generator, row, name) for row, name in pairs])


ATTRIBUTES = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Male", "Young")
HAIR = ATTRIBUTES[:3]


def edit_labels(labels: Tensor, attribute: str) -> Tensor:
    """Return the target labels that edit one attribute, by StarGAN's rule.

    A hair colour is set and the other two are cleared; Male and Young are flipped.

    Args:
        labels: (N, 5) current labels, 0 or 1, in the order of `ATTRIBUTES`.
        attribute: one of `ATTRIBUTES`.

    Returns:
        (N, 5) target labels.

    Raises:
        SalattackError: an unknown attribute.
    """
    if attribute not in ATTRIBUTES:
        raise one_of("attribute", attribute, ATTRIBUTES)
    target = labels.clone()
    index = ATTRIBUTES.index(attribute)
    if attribute in HAIR:
        target[:, : len(HAIR)] = 0
        target[:, index] = 1
    else:
        target[:, index] = 1 - target[:, index]
    return target


def _labels(_: object, labels: Tensor, edit: str) -> Tensor:
    return edit_labels(labels, edit)


LABEL_EDITS = EditSet(ATTRIBUTES, _labels)  # of a generator that takes StarGAN's five labels
