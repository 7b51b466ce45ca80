"""The attack loop: Eq. 3 to 10 and Algorithm 1. Every attacker is an `Attack`.

Images are float32 (or float64) in [-1, 1] throughout. Every bound and step is in the same units.
The attackers that the paper compares are in `salattack.presets`.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from .blur import Blur
from .colours import SPACES, per_channel, same
from .edits import Targets
from .errors import SalattackError, one_of
from .images import checked_images, uniform_noise
from .interfaces import Generator
from .minimum_norm import Saved, Smallest
from .objective import Map, gradient, losses
from .regions import REGIONS, checked_map, per_image, texture, within_ball

Tick = Callable[[int], object]


class UnmovedWarning(UserWarning):
    """Some images came back unchanged, so they are not disrupted at all."""


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One attacker: maximises MSE(g(I_ptb, c), g(I_org, c)) by gradient steps (Eq. 7).

    Attributes:
        bound: L∞ bound τ on the perturbation (Eq. 6). Ruiz et al. use 0.05. The "magnitude 0.1"
            of § IV-A may be this bound, or the step.
        step_size: step m (Eq. 8–10); None means ``bound``, so that one step is FGSM.
        steps: iterations.
        blurs: blurs that g sees the image through, in the loss (§ IV-A); empty for none.
        region: "everywhere", or a name of `salattack.regions.REGIONS`, "saliency" in the paper.
            Start and steps are multiplied by that map M (Eq. 4, 10); where M = 0, bits are kept.
        start: half-width of the uniform random start, at most ``bound``; the paper does not say.
            At I_org the gradient is zero and sign(0) = 0, so I-FGSM taken literally never moves.
            With ±0.001 (a comment in Ruiz et al.'s code) it does.
        start_in: "region" multiplies the start by M (Eq. 4). "everywhere" leaves it unmasked, like
            an implementation that masks only the steps; the background is then noise.
        blur_schedule: "cycle" takes one blur per iteration in turn (Spread-Spectrum), "mean"
            averages the loss over all of them (EoT).
        blur_target: "loss" blurs only what g sees (Ruiz et al.), "iterate" the image itself.
        gradient_at: "iterate" takes the gradient at I^t; "masked" at I^t × M, Eq. 10 as printed.
        bound_by: "bound" limits the perturbation to τ (Eq. 6); "saliency" to τ × M.
        loss: "mse" (§ IV-A), "l1", or "features", a squared perceptual distance.
        goal: "break" moves g's output away from g(I_org) (Eq. 7), "nullify" towards I_org, so
            that the photo seems unedited (Yeh et al., WACVW 2020).
        edits: for a tuple of targets: "joint" adds their losses, "cycle" takes one per iteration
            in turn (Ruiz et al.'s two class-transferable attacks). "joint" passes the tuple to g.
        colours: "rgb", or "ab": start, steps and bound are in a and b of CIE Lab, in units of
            128, and lightness does not change (Anti-Forgery, Wang et al., IJCAI 2022).
        shared: one perturbation for every photo of the batch (CMUA, Huang et al., AAAI 2022).
        momentum: share μ of the previous steps that is kept (Dong et al., CVPR 2018).
        direction: "sign" moves every pixel equally far (Eq. 8–10); "gradient" steps along the
            gradient itself, with root mean square m (L2-PGD, Madry et al., ICLR 2018).
        radius: radius of an L2 ball around I_org, as a root mean square over the image; None for
            no ball. The iterates stay in it too. A minimum-norm attack starts with this radius.
        until: damage that a minimum-norm attack (ours) must exceed: `salattack.minimum_norm`.
        norm: "flat" multiplies steps by M (Eq. 10), "texture" by `salattack.regions.texture`.
        radius_step: largest share γ by which a minimum-norm attack changes a radius.
        seed: seed of the random start; an image's noise depends only on it and on the pixels.
    """

    bound: float = 0.05
    step_size: float | None = 0.01
    steps: int = 10
    blurs: tuple[Blur, ...] = ()
    region: str = "everywhere"
    start: float = 0.0
    start_in: Literal["region", "everywhere"] = "region"
    blur_schedule: Literal["cycle", "mean"] = "cycle"
    blur_target: Literal["loss", "iterate"] = "loss"
    gradient_at: Literal["iterate", "masked"] = "iterate"
    bound_by: Literal["bound", "saliency"] = "bound"
    loss: Literal["mse", "l1", "features"] = "mse"
    goal: Literal["break", "nullify"] = "break"
    edits: Literal["joint", "cycle"] = "joint"
    colours: Literal["rgb", "ab"] = "rgb"
    shared: bool = False
    momentum: float = 0.0
    direction: Literal["sign", "gradient"] = "sign"
    radius: float | None = None
    until: float | None = None
    norm: Literal["flat", "texture"] = "flat"
    radius_step: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        whole = isinstance(self.steps, int) and not isinstance(self.steps, bool)
        for holds, rule, value in (
            (self.bound >= 0, "bound must be ≥ 0 (in [-1, 1] units)", self.bound),
            (self.step_size is None or self.step_size > 0, "step_size must be > 0", self.step_size),
            (whole and self.steps >= 1, "steps must be a whole number ≥ 1", repr(self.steps)),
            (self.radius is None or self.radius >= 0, "radius must be ≥ 0", self.radius),
            (self.momentum >= 0, "momentum must be ≥ 0", self.momentum),
            (self.until is None or self.until > 0, "until must be > 0", self.until),
            (0 < self.radius_step < 1, "radius_step must be between 0 and 1", self.radius_step),
            (
                0 <= self.start <= self.bound,
                f"start must be between 0 and the bound {self.bound}",
                self.start,
            ),
        ):
            if not holds:
                raise SalattackError(f"{rule}, got {value}")
        for name, known in _choices().items():
            if getattr(self, name) not in known:
                raise one_of(name, getattr(self, name), known)
        masked, adapts = self.region != "everywhere", self.goal == "break" and not self.shared
        if self.shared and (masked or self.colours != "rgb" or self.norm != "flat"):
            raise SalattackError("a shared perturbation has no region, is in rgb and norm='flat'")
        if not masked and (self.gradient_at == "masked" or self.bound_by == "saliency"):
            raise SalattackError("gradient_at and bound_by use the map: set region='saliency'")
        if self.start_in == "everywhere" and self.bound_by == "saliency":
            raise SalattackError("bound_by='saliency' masks the start too: leave start_in as it is")
        if self.until is not None and (self.radius is None or not adapts):
            raise SalattackError("until needs a radius, goal='break' and shared=False")

    @property
    def gradients(self) -> int:
        """Number of gradients of g that one image needs."""
        return self.steps * len(self._blurs_at(0))

    def with_strength(self, bound: float, step_size: float | None, steps: int) -> "Attack":
        """Return this attacker at another strength. FGSM keeps its one step, of size ``bound``.

        A radius keeps its ratio to the bound. A start that fills the whole bound (PGD) still does.
        A minimum-norm attack finds its own strength and is returned unchanged.

        Raises:
            SalattackError: a value out of range, or a radius with a bound of 0.
        """
        if self.until is not None:
            return self
        if self.step_size is None and self.steps == 1:
            step_size, steps = None, 1
        whole = self.start == self.bound > 0  # PGD
        if (radius := self.radius) is not None:
            if self.bound == 0:
                raise SalattackError("a radius cannot be scaled from a bound of 0; set both")
            radius = radius * (bound / self.bound)
        start = bound if whole else min(self.start, bound)
        return replace(
            self, bound=bound, radius=radius, step_size=step_size, steps=steps, start=start
        )

    def __call__(
        self,
        generator: Generator,
        images: Tensor,
        target: Targets,
        saliency_map: Tensor | None = None,
        *,
        features: Map | None = None,
        on_gradient: Tick | None = None,
    ) -> Tensor:
        """Disrupt a batch: the perturbed images I_ptb of Algorithm 1.

        Args:
            generator: g, differentiable in its images; its parameters do not change.
            images: I_org, (N, 3, H, W) float32 or float64 in [-1, 1].
            target: c, the edit that g makes, one row per image; see `Targets`.
            saliency_map: M, (N, 1, H, W) in [0, 1]; required if there is a ``region``, else None.
            features: maps g's images to features (N, …), for the loss "features".
            on_gradient: called with N after every gradient (progress).

        Returns:
            I_ptb, same shape, in [-1, 1] and within ``bound`` of I_org (in ``colours``).

        Raises:
            SalattackError: unusable images or map, or a map without a region.

        Warns:
            UnmovedWarning: images that came back bit-identical.
            UnbrokenWarning: fakes that do not reach ``until``, see `salattack.minimum_norm`.
        """
        images = checked_images(images)
        x, clean, decode = self._run(generator, images, target, saliency_map, features, on_gradient)
        still = (x == clean).all(1, keepdim=True)
        result = torch.where(still, images, decode(x))  # a space's way back may round
        if unmoved := int((result == images).flatten(1).all(1).sum()):
            warnings.warn(
                f"{unmoved} of {len(images)} images came back unchanged (the gradient was zero or "
                "the region empty): give the attack a start > 0 or a blur, and look at the mask",
                UnmovedWarning,
                stacklevel=2,
            )
        return result

    def _run(
        self,
        generator: Generator,
        images: Tensor,
        target: Targets,
        saliency_map: Tensor | None = None,
        features: Map | None = None,
        on_gradient: Tick | None = None,
    ) -> tuple[Tensor, Tensor, Map]:
        """Run Algorithm 1; return the last iterate, its origin, and the map back to images.

        A shared attack iterates on the perturbation (1, 3, H, W), the others on the images.
        """
        mask = self._mask(images, saliency_map)  # M (Eq. 1)
        clean, decode, channels = self._space(images)  # I_org, and the way back from its space
        ways = target if self.edits == "cycle" and isinstance(target, tuple) else (target,)
        j = losses(generator, images, ways, self.loss, self.goal, features, self.until)  # Eq. 7
        low, high = self._box(clean, mask)
        search = None
        if self.until is not None:
            search = Smallest(generator, images, target, self.until, self.radius)
        # g sees the saved picture itself: its forward pass measures the damage as well
        plain = not self.blurs and self.gradient_at == "iterate" and len(ways) == 1
        m = self.bound if self.step_size is None else self.step_size
        weight = mask if self.norm == "flat" else texture(images, mask)
        left, radius, velocity = 1.0, self.radius, torch.zeros_like(clean)

        x = clean  # I^0
        if self.start > 0:
            noise = self.start * (mask if self.start_in == "region" else 1.0) * channels
            noise = noise * uniform_noise(images[: len(x)], self.seed)
            x = within_ball(radius, clean, x + noise).clamp(low, high)
        for t in range(self.steps):
            x, blurs = self._blurred(x, mask, t)
            views = [self._view(blur, decode, mask) for blur in blurs]
            nabla, fake = gradient(j[t % len(j)], x, views, on_gradient)
            nabla = nabla * channels
            if search is not None:
                left = 1 - t / self.steps
                change = self.radius_step * left
                radius = search.take(x, decode(x), change, fake if plain else None)
            if self.momentum:
                velocity = self.momentum * velocity + nabla / per_image(nabla.abs())
                nabla = velocity
            x = x + left * m * self._direction(nabla, weight)  # Eq. 8–10
            x = within_ball(radius, clean, x).clamp(low, high)  # Eq. 6
        if search is not None:
            x = search.result()
        return x, clean, decode

    def _mask(self, images: Tensor, saliency_map: Tensor | None) -> Tensor:
        if (self.region == "everywhere") != (saliency_map is None):
            found = "takes no" if saliency_map is not None else "needs a"
            switch = "dataclasses.replace(attack, region=...) switches"
            raise SalattackError(f"region={self.region!r} {found} saliency_map; {switch}")
        return images.new_ones(1) if saliency_map is None else checked_map(saliency_map, images)

    def _space(self, images: Tensor) -> tuple[Tensor, Map, Tensor]:
        encode, decode, movable = SPACES[self.colours]
        channels = per_channel(movable, images.dtype, images.device)
        if self.shared:
            return torch.zeros_like(images[:1]), lambda d: (images + d).clamp(-1, 1), channels
        return encode(images), decode, channels

    def _box(self, clean: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the lowest and highest values that Eq. 4 and 6 allow."""
        reach = self.bound * (mask if self.bound_by == "saliency" else 1.0)
        low, high = clean - reach, clean + reach
        if self.colours == "rgb" and not self.shared:
            low, high = low.clamp(min=-1), high.clamp(max=1)
        return low, high

    def _blurs_at(self, t: int) -> tuple[Map, ...]:
        if not self.blurs:
            return (same,)
        return self.blurs if self.blur_schedule == "mean" else (self.blurs[t % len(self.blurs)],)

    def _blurred(self, x: Tensor, mask: Tensor, t: int) -> tuple[Tensor, tuple[Map, ...]]:
        """Return the iterate, blurred if ``blur_target`` says so, and the blurs in the loss."""
        if self.blur_target == "loss" or not self.blurs:
            return x, self._blurs_at(t)
        blurred = torch.stack([blur(x) for blur in self._blurs_at(t)]).mean(0)
        return torch.lerp(x, blurred, mask), (same,)

    def _view(self, blur: Map, decode: Map, mask: Tensor) -> Map:
        """Return the function from the iterate to the image that g sees."""

        def view(x: Tensor) -> Tensor:
            seen = decode(x) if self.until is None else Saved.apply(decode(x))
            return blur(seen * mask if self.gradient_at == "masked" else seen)

        return view

    def _direction(self, nabla: Tensor, weight: Tensor) -> Tensor:
        if self.direction == "sign":
            return nabla.sign() * weight
        nabla = nabla * weight
        return nabla / per_image(nabla.square()).sqrt()


@cache
def _choices() -> dict[str, tuple[str, ...]]:
    """Return the allowed values of each attribute that takes a name."""
    hints = get_type_hints(Attack)
    literals = {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal}
    return literals | {"region": ("everywhere", *REGIONS)}


def universal_perturbation(
    attack: Attack, generator: Generator, images: Tensor, target: Targets
) -> Tensor:
    """Return the perturbation (1, 3, H, W) of a ``shared`` attack on a set of images.

    Use it on any photo as ``(photo + delta).clamp(-1, 1)``.

    Raises:
        SalattackError: the attack is not shared, or as `Attack.__call__`.
    """
    if not attack.shared:
        raise SalattackError('a universal perturbation needs shared=True: attacker("universal")')
    return attack._run(generator, checked_images(images), target)[0]
