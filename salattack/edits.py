"""What a generator can be asked for: its edits by name, as targets of its own kind."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import one_of

# From a generator, (N, 5) labels of StarGAN's attributes and the name of an edit to (N, …) targets.
Target = Callable[[object, Tensor, str], Tensor]


@dataclass(frozen=True)
class EditSet:
    """The edits of one kind of generator.

    Attributes:
        names: what tables and figures ask for, in their order.
        target: how the generator is asked, see `Target`.
    """

    names: tuple[str, ...]
    target: Target

    def targets(self, generator: object, labels: Tensor, edits: Sequence[str]) -> Tensor:
        """Return (N, …) targets that edit each face in its own way.

        Or (N, K, …) targets of all K ``names`` at once, where every edit is "joint".

        Args:
            generator: whose targets they are.
            labels: (N, 5) labels of the faces.
            edits: a name for each face.

        Raises:
            SalattackError: an edit that is not among ``names``.
        """
        if set(edits) == {"joint"}:
            return torch.stack([self.target(generator, labels, name) for name in self.names], 1)
        for name in edits:
            if name not in self.names:
                raise one_of("edit", name, self.names)
        pairs = zip(labels.split(1), edits, strict=True)
        return torch.cat([self.target(generator, row, name) for row, name in pairs])
