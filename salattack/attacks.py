"""The attack loop (Eq. 6–10, Algorithm 1) and the paper's attackers as presets of it.

An attacker is a value: where it starts, what g sees of the iterate, how far it steps, which
region it may touch, and what it is projected on. Images are float32 in [-1, 1] throughout, and
so are the units of every bound and step.
"""

import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .blur import Blur
from .colours import SPACES, per_channel, same
from .edits import Targets
from .errors import SalattackError, one_of
from .interfaces import Generator
from .regions import REGIONS


class UnmovedWarning(UserWarning):
    """Some images came back unchanged: that is no disruption, whatever the tables say."""


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One attacker. Maximises MSE(g(I_ptb, c), g(I_org, c)) by sign-gradient steps (Eq. 7).

    Every choice that the paper leaves open is an attribute here.

    Attributes:
        bound: L∞ bound τ on the perturbation (Eq. 6), in [-1, 1] units. Ruiz et al.: 0.05; the
            "magnitude 0.1" of § IV-A may be this, or the step.
        radius: of a ball that the perturbation is kept in as well, as its root mean square over
            the image, in the same units (L2, as Madry et al. 2018 project); None for no ball.
        step_size: step m (Eq. 8–10); None stands for ``bound``, which makes one step FGSM.
        steps: iterations.
        start: half-width of the uniform random start, at most ``bound``. I-FGSM taken literally
            starts at I_org, where the loss is at its minimum, its gradient exactly zero and
            sign(0) = 0: it never moves. ±0.001 (a comment in Ruiz et al.'s code) leaves that
            plateau.
        start_in: "region" multiplies the start by M (Eq. 4); "everywhere" does not, as code would
            that masks the steps alone: its background is noise. A reading of the paper, no more.
        blurs: what stands before g in the loss; empty for nothing.
        blur_schedule: "cycle" applies one blur an iteration in turn (Spread-Spectrum), "mean"
            averages the loss over all of them in every iteration (EoT).
        blur_target: "loss" blurs only what g sees and leaves the image sharp (Ruiz et al.);
            "iterate" blurs the image itself before each step.
        region: "everywhere", or a name of `salattack.regions.REGIONS`, "saliency" in the paper:
            start and steps are multiplied by that soft map M (Eq. 4, 10), so that pixels with
            M = 0 keep their bits.
        gradient_at: "iterate" takes the gradient at I^t; "masked" at I^t × M, Eq. 10 as printed.
        bound_by: "bound" limits the perturbation to τ (Eq. 6); "saliency" to τ × M (Eq. 4 with
            ε bounded by τ).
        loss: "mse" (§ IV-A), "l1", or "features", the squared distance of perceptual features.
        goal: "break" goes away from g(I_org) (Eq. 7; Yeh et al.'s distorting attack), "nullify"
            towards I_org itself, so that nothing seems edited (Yeh et al., WACVW 2020).
        edits: for a tuple of targets, which asks for several edits at once: "joint" adds their
            losses, "cycle" takes one per iteration in turn (Ruiz et al.'s two class-transferable
            attacks). "joint" passes the tuple to g, as `Study` expects it.
        colours: "rgb", or "ab": only a and b of CIE Lab, in units of 128, lightness being kept;
            start, steps and bound are in that space (Wang et al., Anti-Forgery, IJCAI 2022).
        shared: optimises one perturbation that is added to every photo of the batch (as in CMUA,
            Huang et al., AAAI 2022); `universal_perturbation` returns it for other photos.
        direction: "sign" steps as far on every pixel (Eq. 8–10); "gradient" steps along the
            gradient itself, as far in root mean square, so that pixels which matter little
            change little.
        momentum: share μ of the steps before that is kept (Dong et al., CVPR 2018).
        seed: of the random start; each image's noise depends on the seed and its pixels alone,
            not on the batch it came in.
    """

    bound: float = 0.05
    radius: float | None = None
    step_size: float | None = 0.01
    steps: int = 10
    start: float = 0.0
    start_in: Literal["region", "everywhere"] = "region"
    blurs: tuple[Blur, ...] = ()
    blur_schedule: Literal["cycle", "mean"] = "cycle"
    blur_target: Literal["loss", "iterate"] = "loss"
    region: str = "everywhere"
    gradient_at: Literal["iterate", "masked"] = "iterate"
    bound_by: Literal["bound", "saliency"] = "bound"
    loss: Literal["mse", "l1", "features"] = "mse"
    goal: Literal["break", "nullify"] = "break"
    edits: Literal["joint", "cycle"] = "joint"
    colours: Literal["rgb", "ab"] = "rgb"
    shared: bool = False
    direction: Literal["sign", "gradient"] = "sign"
    momentum: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.bound >= 0:
            raise SalattackError(f"bound must be ≥ 0 (in [-1, 1] units), got {self.bound}")
        if self.radius is not None and not self.radius >= 0:
            raise SalattackError(f"radius must be ≥ 0, got {self.radius}")
        if self.step_size is not None and not self.step_size > 0:
            raise SalattackError(f"step_size must be > 0, got {self.step_size}")
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise SalattackError(f"steps must be a whole number ≥ 1, got {self.steps!r}")
        if not 0 <= self.start <= self.bound:
            raise SalattackError(
                f"start must be between 0 and the bound {self.bound}, got {self.start}; "
                "`with_strength` scales an attacker as a whole"
            )
        if not self.momentum >= 0:
            raise SalattackError(f"momentum must be ≥ 0, got {self.momentum}")
        for name, value, known in (
            ("start_in", self.start_in, ("region", "everywhere")),
            ("blur_schedule", self.blur_schedule, ("cycle", "mean")),
            ("blur_target", self.blur_target, ("loss", "iterate")),
            ("region", self.region, ("everywhere", *REGIONS)),
            ("loss", self.loss, ("mse", "l1", "features")),
            ("goal", self.goal, ("break", "nullify")),
            ("edits", self.edits, ("joint", "cycle")),
            ("colours", self.colours, ("rgb", "ab")),
            ("direction", self.direction, ("sign", "gradient")),
            ("gradient_at", self.gradient_at, ("iterate", "masked")),
            ("bound_by", self.bound_by, ("bound", "saliency")),
        ):
            if value not in known:
                raise one_of(name, value, known)
        if self.shared and (self.region != "everywhere" or self.colours != "rgb"):
            raise SalattackError("a shared perturbation has no region and is in rgb")
        if self.start_in == "everywhere" and self.bound_by == "saliency":
            raise SalattackError("bound_by='saliency' masks the start too: leave start_in as it is")
        needs_map = self.gradient_at == "masked" or self.bound_by == "saliency"
        if needs_map and self.region == "everywhere":
            raise SalattackError("gradient_at and bound_by use the map: set region='saliency'")

    @property
    def gradients(self) -> int:
        """Gradients of g that one image costs."""
        return self.steps * len(self._blurs_at(0))

    def with_strength(self, bound: float, step_size: float | None, steps: int) -> "Attack":
        """Return this attacker at another strength; FGSM stays one step of the size of bound.

        A radius keeps its ratio to the bound. A start in the whole ball stays one, and another
        start stays as it is where the bound allows it.

        Raises:
            SalattackError: a value out of range, or a radius beside a bound of 0.
        """
        if self.step_size is None and self.steps == 1:
            step_size, steps = None, 1
        whole = self.start == self.bound > 0  # PGD
        radius = self.radius
        if radius is not None:
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
        features: Callable[[Tensor], Tensor] | None = None,
        on_gradient: Callable[[int], object] | None = None,
    ) -> Tensor:
        """Disrupt a batch: the perturbed images I_ptb of Algorithm 1.

        Args:
            generator: g, differentiable in its images; its parameters are left alone.
            images: I_org, (N, 3, H, W) float32 (or float64) in [-1, 1]; no gradients reach them.
            target: what g is asked for, one row per image; see `Targets`.
            saliency_map: M, (N, 1, H, W) in [0, 1], the ``region``; exactly when there is one.
            features: of g's images, for the loss "features": (N, …).
            on_gradient: called with N after every gradient (progress).

        Returns:
            I_ptb, same shape, in [-1, 1] and within ``bound`` of I_org (in ``colours``).

        Raises:
            SalattackError: images or map with NaN, out of range, of another size or type; a map
                given where none is used, or none where one is.

        Warns:
            UnmovedWarning: images that came back bit-identical.
        """
        images = _checked(images)
        x, clean, decode = self._ascend(
            generator, images, target, saliency_map, features, on_gradient
        )
        still = (x == clean).all(1, keepdim=True)
        x = torch.where(still, images, decode(x))  # a colour space's way back may round
        if still := int((x == images).flatten(1).all(1).sum()):
            warnings.warn(
                f"{still} of {len(images)} images came back unchanged (the gradient was zero or "
                "the region empty): give the attack a start > 0 or a blur, and look at the mask",
                UnmovedWarning,
                stacklevel=2,
            )
        return x

    def _ascend(
        self,
        generator: Generator,
        images: Tensor,
        target: Targets,
        saliency_map: Tensor | None = None,
        features: Callable[[Tensor], Tensor] | None = None,
        on_gradient: Callable[[int], object] | None = None,
    ) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        """Return the last iterate, where it started from, and the way from there to images.

        A shared attack iterates on the perturbation (1, 3, H, W), the others on the images.
        """
        mask = self._mask(images, saliency_map)
        if (self.loss == "features") != (features is not None):
            raise SalattackError(f"loss={self.loss!r}: features belong to the loss 'features'")
        distance = F.l1_loss if self.loss == "l1" else F.mse_loss
        seen_in = features or same
        ways = target if self.edits == "cycle" and isinstance(target, tuple) else (target,)
        with torch.no_grad():  # what the distance is taken to, computed once
            references = [seen_in(self._reference(generator(images, way), images)) for way in ways]
        towards = 1 if self.goal == "break" else -1
        encode, decode, movable = SPACES[self.colours]
        channels = per_channel(movable, images.dtype, images.device)
        clean = encode(images)
        reach = self.bound * (mask if self.bound_by == "saliency" else 1.0)
        if self.shared:
            clean = torch.zeros_like(images[:1])

            def decode(delta: Tensor) -> Tensor:
                return (images + delta).clamp(-1, 1)

        low, high = clean - reach, clean + reach
        if self.colours == "rgb" and not self.shared:
            low, high = low.clamp(min=-1), high.clamp(max=1)
        step = self.bound if self.step_size is None else self.step_size

        x, velocity = clean, torch.zeros_like(clean)
        if self.start > 0:
            place = mask if self.start_in == "region" else 1.0
            noise = _noise(images[: len(x)], self.seed)
            x = self._within(clean, x + self.start * place * channels * noise)
            x = x.clamp(low, high)
        for t in range(self.steps):
            blurs = self._blurs_at(t)
            if self.blur_target == "iterate" and self.blurs:
                x = torch.lerp(x, torch.stack([b(x) for b in blurs]).mean(0), mask)
                blurs = (same,)
            way, reference = ways[t % len(ways)], references[t % len(ways)]
            gradient = torch.zeros_like(x)
            for blur in blurs:
                seen = x.detach().requires_grad_()
                with torch.enable_grad():  # also where the caller has switched it off
                    view = decode(seen)
                    view = blur(view * mask if self.gradient_at == "masked" else view)
                    loss = distance(seen_in(generator(view, way)), reference)
                    gradient += towards * _gradient(loss, seen)
                if on_gradient is not None:
                    on_gradient(len(images))
            gradient *= channels
            if self.momentum:
                velocity = self.momentum * velocity + gradient / _per_image(gradient.abs())
                gradient = velocity
            x = self._within(clean, x + step * self._direction(gradient, mask))  # Eq. 9, 10
            x = x.clamp(low, high)  # Eq. 6
        return x, clean, decode

    def _reference(self, fakes: Tensor, images: Tensor) -> Tensor:
        if self.goal == "break":
            return fakes
        return images.repeat(1, fakes.shape[1] // images.shape[1], 1, 1)  # one for each edit

    def _direction(self, gradient: Tensor, mask: Tensor) -> Tensor:
        if self.direction == "sign":
            return gradient.sign() * mask
        gradient = gradient * mask
        return gradient / _per_image(gradient.square()).sqrt()

    def _within(self, clean: Tensor, x: Tensor) -> Tensor:
        if self.radius is None:
            return x
        size = _per_image((x - clean).square()).sqrt()
        return torch.lerp(clean, x, (self.radius / size).clamp(max=1))

    def _blurs_at(self, t: int) -> tuple[Callable[[Tensor], Tensor], ...]:
        if not self.blurs:
            return (same,)
        return self.blurs if self.blur_schedule == "mean" else (self.blurs[t % len(self.blurs)],)

    def _mask(self, images: Tensor, saliency_map: Tensor | None) -> Tensor:
        if (self.region == "everywhere") != (saliency_map is None):
            raise SalattackError(
                f"region={self.region!r} "
                + ("takes no saliency_map" if saliency_map is not None else "needs a saliency_map")
                + "; dataclasses.replace(attack, region=...) switches"
            )
        if saliency_map is None:
            return images.new_ones(1)
        if saliency_map.shape != (len(images), 1, *images.shape[-2:]):
            raise SalattackError(
                f"the saliency_map is {tuple(saliency_map.shape)}, "
                f"it must be {(len(images), 1, *images.shape[-2:])} for these images"
            )
        if not ((saliency_map >= 0) & (saliency_map <= 1)).all():
            raise SalattackError("the saliency_map must lie in [0, 1] without NaN")
        return saliency_map.detach().to(images)


def _per_image(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1).clamp(min=1e-30)[:, None, None, None]


def _gradient(loss: Tensor, x: Tensor) -> Tensor:
    if not loss.requires_grad:  # a generator that ignores its images
        return torch.zeros_like(x)
    (gradient,) = torch.autograd.grad(loss, x, materialize_grads=True)
    return gradient


def _noise(images: Tensor, seed: int) -> Tensor:
    """Uniform in [-1, 1]; drawn on the CPU, so that every device starts at the same point."""
    draws = []
    for image in images.cpu():
        key = zlib.crc32(image.contiguous().numpy().tobytes(), seed & 0xFFFFFFFF)
        source = torch.Generator().manual_seed(key)
        draws.append(torch.rand(image.shape, generator=source) * 2 - 1)
    return torch.stack(draws).to(images)


def _checked(images: Tensor) -> Tensor:
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype not in _TYPES:
        raise SalattackError(
            "images must be (N, 3, H, W) of float32 or float64, got "
            f"{tuple(images.shape)} of {images.dtype}"
        )
    if not len(images):
        raise SalattackError("the batch holds no images")
    if not torch.isfinite(images).all():
        raise SalattackError("the images contain NaN or infinity")
    if images.min() < -1 or images.max() > 1:
        raise SalattackError(
            f"the images must lie in [-1, 1], found [{images.min():.3g}, {images.max():.3g}]; "
            "divide 8-bit values by 127.5 and subtract 1"
        )
    return images.detach()


_TYPES = (torch.float32, torch.float64)


def universal_perturbation(
    attack: Attack, generator: Generator, images: Tensor, target: Targets
) -> Tensor:
    """Return the one perturbation (1, 3, H, W) that disrupts a whole batch, to add to other photos.

    Added to a photo, it is clipped to [-1, 1] there: ``(photo + delta).clamp(-1, 1)``.

    Args:
        attack: a ``shared`` one.
        generator: g.
        images: the set it is made from, (N, 3, H, W) in [-1, 1].
        target: one row per image.

    Raises:
        SalattackError: the attack is not shared, or as `Attack.__call__`.
    """
    if not attack.shared:
        raise SalattackError('a universal perturbation needs shared=True: attacker("universal")')
    return attack._ascend(generator, _checked(images), target)[0]
