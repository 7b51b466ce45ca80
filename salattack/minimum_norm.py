"""The smallest change that breaks the fake: what a minimum-norm attack adds to the loop.

It searches the smallest δ with damage(saved(I_org + δ)) > ``until``. It follows DDN (Rony et al.,
CVPR 2019), which adapts a radius ρ to each image, and decreases γ as FMN does (Pintor et al.,
NeurIPS 2021). With u = 1 - t / steps, iteration t is

    d_t     = min_k damage_k(saved(x_t)),   g_t = w ∇ softmin_k damage_k(saved(x_t))
    ρ_{t+1} = ρ_t (until / d_t)^p, by at most a factor 1 ± γ u,   ρ_0 = ``radius``
    x_{t+1} = the projection of x_t + m u g_t / rms(g_t) on the ball of radius ρ_{t+1}.

DDN always takes the factor 1 ± γ. Here the radius settles where d_t = until. p = 0.4 is a choice:
at 100 steps, PSNR is within 0.1 dB of DDN's rule. w is M or `salattack.regions.texture`, see
``norm``. "saved" rounds to 8 bits; its gradient is taken as 1 (straight-through, Bengio et al.,
2013). Images are (N, 3, H, W) in [-1, 1].
"""

import warnings

import torch
from torch import Tensor

from .edits import Targets
from .images import as_saved
from .interfaces import Generator

SLACK = 0.001  # share of damage beyond ``until``: a batch of another size rounds differently
POWER = 0.4  # p
SOFTNESS = 0.1  # of the soft minimum over several edits, as a share of ``until``


class UnbrokenWarning(UserWarning):
    """Some fakes do not reach the damage that a minimum-norm attack must exceed."""


class Smallest:
    """The best iterate of each image: the smallest change among those that broke the fake.

    If none did, it is the one with the most damage. The arguments are those of
    `salattack.attacks.Attack`. Of several edits, the least damaged one counts.
    """

    def __init__(
        self, generator: Generator, images: Tensor, target: Targets, until: float, radius: float
    ) -> None:
        self.generator, self.images, self.target, self.until = generator, images, target, until
        with torch.no_grad():
            self.fakes = generator(images, target)
        self.radius = images.new_full((len(images), 1, 1, 1), radius)
        self.damage = images.new_full((len(images),), -1.0)
        self.size = torch.full_like(self.damage, torch.inf)  # finite for images that passed
        self.x = images

    @torch.no_grad()
    def take(self, x: Tensor, picture: Tensor, change: float, fakes: Tensor | None) -> Tensor:
        """Keep the images of x that are better, and return the next radii (N, 1, 1, 1).

        Args:
            x: the iterate, in the attack's colour space.
            picture: the same in [-1, 1].
            change: γ u, the largest share by which a radius shrinks or grows.
            fakes: g of the saved picture, if it is known.
        """
        saved = as_saved(picture)
        fakes = self.generator(saved, self.target) if fakes is None else fakes
        damage = damages(fakes, self.fakes).amin(1)
        size = (saved - self.images).square().flatten(1).mean(1)
        enough = self.until * (1 + SLACK)
        passed = damage > enough
        better = torch.where(passed, size < self.size, self.size.isinf() & (damage > self.damage))
        self.x = torch.where(better[:, None, None, None], x, self.x)
        self.damage = torch.where(better, damage, self.damage)
        self.size = torch.where(better & passed, size, self.size)
        factor = (enough / damage).pow(POWER).clamp(1 - change, 1 + change)
        self.radius = self.radius * factor[:, None, None, None]
        return self.radius

    def result(self) -> Tensor:
        """Return the best iterates, and warn if some fakes were not broken."""
        if missed := int(self.size.isinf().sum()):
            warnings.warn(
                f"{missed} of {len(self.size)} fakes do not reach the damage {self.until} "
                f"(the least reaches {self.damage.min():.3g}): raise steps, bound or radius",
                UnbrokenWarning,
                stacklevel=4,
            )
        return self.x


class Saved(torch.autograd.Function):
    """Rounding to 8 bits with a straight-through gradient."""

    @staticmethod
    def forward(_: object, images: Tensor) -> Tensor:
        """Round the images."""
        return as_saved(images)

    @staticmethod
    def backward(_: object, gradient: Tensor) -> Tensor:
        """Return the gradient unchanged."""
        return gradient


def damages(fakes: Tensor, clean: Tensor) -> Tensor:
    """Return the damage to each of K edits: (N, 3 K, H, W) fakes to (N, K) mean squares."""
    return (fakes - clean).square().unflatten(1, (-1, 3)).flatten(2).mean(2)


def soft_minimum(values: Tensor, until: float) -> Tensor:
    """Return a smooth minimum (N,) of (N, K) damages over the K edits; for K = 1, the damage."""
    softness = SOFTNESS * until
    return -softness * torch.logsumexp(values / -softness, 1)


@torch.no_grad()
def least_damage(
    generator: Generator, images: Tensor, perturbed: Tensor, target: Targets
) -> Tensor:
    """Return the damage (N,) by the perturbed pictures saved with 8 bits, for values in [-1, 1].

    Of several edits (a tuple of targets), the least damaged one counts.
    """
    return damages(generator(as_saved(perturbed), target), generator(images, target)).amin(1)
