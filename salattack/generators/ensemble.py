"""Several generators attacked as one."""

import torch
from torch import Tensor

from ..errors import SalattackError
from ..interfaces import Generator


class Ensemble:
    """A generator whose output is its members' outputs, one after another along the channels.

    The MSE that `salattack.attacks.Attack` maximises is then the mean of the members' own; the
    measures too are of all members together. A member whose output moves far weighs most.
    No members are a SalattackError.
    """

    def __init__(self, *members: Generator) -> None:
        if not members:
            raise SalattackError("an ensemble needs at least one generator")
        self.members = members

    def __call__(self, images: Tensor, target: Tensor | list[Tensor | None]) -> Tensor:
        """Edit (N, 3, H, W) images in [-1, 1] by each of K members: (N, 3 K, H, W).

        ``target`` is one for all members, as `Study` passes it, or a list with each member's own
        (a tuple is several edits, see `salattack.edits`); another number is a SalattackError.
        """
        targets = target if isinstance(target, list) else [target] * len(self.members)
        if len(targets) != len(self.members):
            counts = f"{len(self.members)} members, {len(targets)} targets were given"
            raise SalattackError(f"the ensemble has {counts}")
        return torch.cat([g(images, t) for g, t in zip(self.members, targets, strict=True)], dim=1)
