"""The loss that an attack maximises (Eq. 7), and its gradient with respect to I (Eq. 8–10)."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .colours import same
from .edits import Targets
from .errors import SalattackError
from .interfaces import Generator
from .minimum_norm import damages, soft_minimum

SUCCESS = 0.05  # Ruiz et al.: a fake is broken when its MSE in [-1, 1] exceeds this

Map = Callable[[Tensor], Tensor]  # of images
Loss = Callable[[Tensor], tuple[Tensor, Tensor]]  # what g sees → the loss, g's fake


def losses(
    generator: Generator,
    images: Tensor,
    ways: Sequence[Targets],
    kind: str,
    goal: str,
    features: Map | None = None,
    until: float | None = None,
) -> list[Loss]:
    """Return the losses of Eq. 7, one for each target in ``ways``.

    ``images`` are I_org, (N, 3, H, W) in [-1, 1]. ``kind``, ``goal``, ``features`` and ``until``
    are those of `salattack.attacks.Attack`. With ``until``, the least damaged edit counts.

    Raises:
        SalattackError: features without the loss "features", or this loss without features.
    """
    if (kind == "features") != (features is not None):
        raise SalattackError(f"loss={kind!r}: features belong to the loss 'features'")
    distance = F.l1_loss if kind == "l1" else F.mse_loss
    seen_in = features or same

    def aimed_at(way: Targets) -> Loss:
        with torch.no_grad():  # what the distance is taken to, computed once
            fakes = generator(images, way)
            edits = fakes.shape[1] // images.shape[1]
            reference = seen_in(fakes if goal == "break" else images.repeat(1, edits, 1, 1))

        def loss(seen: Tensor) -> tuple[Tensor, Tensor]:
            fake = generator(seen, way)
            if until is not None and kind == "mse":
                return soft_minimum(damages(fake, reference), until).sum(), fake
            value = distance(seen_in(fake), reference)
            return (value if goal == "break" else -value), fake

        return loss

    return [aimed_at(way) for way in ways]


def gradient(
    loss: Loss,
    x: Tensor,
    views: Sequence[Map],
    on_gradient: Callable[[int], object] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the gradient at x of a loss of `losses`, summed over the views, and g's last fake.

    ``views`` map the iterate x to the image that g sees, through a colour space and a blur.
    ``on_gradient`` is called with N after every gradient.
    """
    total = torch.zeros_like(x)
    for view in views:
        at = x.detach().requires_grad_()
        with torch.enable_grad():  # also where the caller has switched it off
            value, fake = loss(view(at))
            if value.requires_grad:  # a generator may ignore its images
                total += torch.autograd.grad(value, at, materialize_grads=True)[0]
        if on_gradient is not None:
            on_gradient(len(fake))
    return total, fake.detach()
