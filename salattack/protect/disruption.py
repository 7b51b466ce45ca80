"""The perturbation of one face, through alignment and compression."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count, cycle

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..attacks import Attack
from ..blur import Blur
from ..edits import ATTRIBUTES, Targets
from ..errors import SalattackError, one_of
from ..faces.alignment import Point
from ..faces.sets import DEFAULT_LABELS
from ..images import as_saved
from ..minimum_norm import UnbrokenWarning
from ..models import Models, load_models
from ..presets import attacker
from .photo_file import Photo
from .placement import Place

# The damage that every edit is to exceed.
STRENGTHS = {"normal": 0.05, "strong": 0.075, "strongest": 0.1}
STEPS = 40  # about 40 seconds of one core
# For so few steps: a radius that adapts quickly, and momentum, which averages over alignments.
SEARCH = {"radius_step": 0.15, "momentum": 0.8}
# A blur of one pixel is none. With it the loop measures damage apart from the gradient.
APART = (Blur("average", 1),)
ALIGNMENTS, CHECKS = 8, 2  # that gradients are taken at, and that damage is measured at too
UNTOUCHED = 1 / 255  # saliency below which a pixel keeps its bits
SEAM = 8  # px of the grid over which the perturbation fades out at the crop's edge
# One px of alignment error: px of the grid, radians, ratio. Together they move a crop of 128 px by
# one px (root mean square).
SHIFT, TURN, ZOOM = 1.0, 0.015, 0.015
LARGEST_ERROR = 8.0  # px
BAND = 1 << 21  # photo pixels computed at once: bounds the memory of a huge face


@dataclass(frozen=True, kw_only=True)
class Protector(Models):
    """The models and the strength, loaded once for many photos."""

    strength: str  # a key of `STRENGTHS`
    attack: Attack  # from `attack_of`, or your own with an ``until``
    alignment_error: float = 2.0  # px that the attack is to withstand, see `other_alignment`

    def face_targets(self) -> Targets:
        """Return the targets of all g's edits, for one face labelled `DEFAULT_LABELS`."""
        labels = torch.tensor([[float(DEFAULT_LABELS[name]) for name in ATTRIBUTES]])
        return self.targets(labels.to(self.device), ["joint"])

    def fakes(self, image: Tensor) -> Tensor:
        """Return the K edits (K, 3, s, s) of one (1, 3, s, s) image in [-1, 1]."""
        edits = self.generate(image.to(self.device), self.face_targets())
        return edits.unflatten(1, (-1, 3))[0].cpu()

    def mask(self, image: Tensor, given: Tensor | None = None) -> Tensor:
        """Return where a (1, 3, s, s) image may change: M, (1, 1, s, s) in [0, 1].

        It is zero where the saliency (or ``given``) is too low for any 8-bit value to change, and
        fades out at the crop's edges so that no seam shows.
        """
        salient = self.saliency(image.to(self.device)).cpu() if given is None else given
        ramp = torch.arange(self.image_size) + 0.5
        ramp = torch.minimum(ramp, ramp.flip(0)).div(SEAM).clamp(max=1)
        salient = salient * ramp * ramp[:, None]
        return salient * (salient >= UNTOUCHED)


def attack_of(strength: str = "normal", max_change: float | None = None) -> Attack:
    """Return the search for the smallest change by which every edit reaches a strength's damage.

    A colour value changes by at most ``max_change`` 8-bit steps; None stands for no limit.

    Raises:
        SalattackError: an unknown strength, or a change below one step.
    """
    if strength not in STRENGTHS:
        raise one_of("strength", strength, STRENGTHS)
    attack = attacker("minimum-norm", until=STRENGTHS[strength], blurs=APART, steps=STEPS, **SEARCH)
    if max_change is None:
        return attack
    if max_change < 1:
        raise SalattackError(f"--max-change is of 255 and at least 1, got {max_change}")
    bound = max_change / 127.5
    return replace(attack, bound=bound, start=min(attack.start, bound))


def load_protector(
    strength: str = "normal",
    *,
    max_change: float | None = None,
    alignment_error: float = 2.0,
    **models: object,
) -> Protector:
    """Load models by name with the arguments of `load_models`, for the search of `attack_of`.

    Raises:
        SalattackError: an unknown name, an error beyond its range, or files that do not fit.
    """
    if not 0 <= alignment_error <= LARGEST_ERROR:
        rule = f"--alignment-error is in px, from 0 to {LARGEST_ERROR:g}"
        raise SalattackError(f"{rule}, got {alignment_error}")
    how = {"strength": strength, "alignment_error": alignment_error}
    return Protector(**how, attack=attack_of(strength, max_change), **vars(load_models(**models)))


def protect_face(
    photo: Photo,
    place: Place,
    mask: Tensor,
    protector: Protector,
    form: str,
    on_step: Callable[[int], object] | None,
    region: Image.Image | None,
) -> None:
    """Disrupt one face in the photo's pixels, in place; M is (1, 1, s, s) in [0, 1].

    A file of the form "JPEG" is compressed inside the attack. Black pixels of ``region``, RGB of
    the photo's size, keep their bits. ``on_step`` is called with the number of gradients so far.
    """
    box = photo.in_blocks(place.box(photo.pixels.size))
    before = photo.pixels.crop(box)
    white = None if region is None else region.crop(box).convert("L").point(lambda v: 255 * (v > 0))

    def changed(delta: Tensor) -> Image.Image:
        part = before.copy()
        part.paste(_spread(before, box[:2], place, delta[0].cpu(), mask[0]), None, white)
        return part

    def written(delta: Tensor) -> Tensor:
        part = changed(delta)
        return place.crop(photo.through_jpeg(part) if form == "JPEG" else part, box[:2])

    x0 = place.crop(photo.pixels)  # faces protected earlier may overlap this one
    view = _View(x0.to(protector.device), place, protector, written)
    steps = count(1)
    tick = on_step and (lambda _: on_step(next(steps)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnbrokenWarning)  # the report says which edits hold
        targets = protector.face_targets()
        x = protector.attack(view, view.x0, targets, mask.to(view.x0), on_gradient=tick)
    photo.pixels.paste(changed(as_saved(x) - view.x0), box[:2])


class _View:
    """A generator for `Attack`: how its K fakes change in the file as it will be written.

    Both the clean and the perturbed photo pass through the output format, so that compression alone
    is no damage. The damage of an edit is the smallest over the face's own alignment and `CHECKS`
    others. Each gradient uses one of `ALIGNMENTS` further alignments, in turn.
    """

    def __init__(
        self, x0: Tensor, place: Place, protector: Protector, written: Callable[[Tensor], Tensor]
    ) -> None:
        self.x0, self.protector, self.written = x0, protector, written
        self.clean = written(torch.zeros_like(x0)).to(x0)
        self.shown = place.shown().to(x0)
        random = torch.Generator().manual_seed(protector.attack.seed)
        size, error = x0.shape[-1], protector.alignment_error
        grids = [other_alignment(size, random, error).to(x0) for _ in range(ALIGNMENTS + CHECKS)]
        self.others, self.checks = cycle(grids[CHECKS:]), [None, *grids[:CHECKS]]
        self.last, self.fakes = (x0, self.clean), {}

    def __call__(self, x: Tensor, targets: Targets) -> Tensor:
        """Map one perturbed crop (1, 3, s, s) to the change of its K fakes (1, 3 K, s, s)."""
        if not torch.equal(x, self.last[0]):
            self.last = x.detach(), self.written((x - self.x0).detach()).to(x)
        view, alignments = self.last[1], self.checks
        if x.requires_grad:
            linear = self.shown @ (x - self.x0) @ self.shown.T  # straight through: its gradient
            lost = torch.equal(view, self.clean)  # all was rounded away: keep the gradient alive
            view = self.clean + linear if lost else view + linear - linear.detach()
            alignments = [next(self.others)]
        changes = torch.cat([self._change(view, where, targets) for where in alignments])
        least = changes.square().flatten(2).mean(2).argmin(0)
        return changes[least, torch.arange(len(least))].flatten(0, 1)[None]

    def _change(self, view: Tensor, where: Tensor | None, targets: Targets) -> Tensor:
        """Return how the fakes change at one alignment, (1, K, 3, s, s)."""
        if where not in self.fakes:
            with torch.no_grad():
                self.fakes[where] = self._edit(self.clean, where, targets)
        return (self._edit(view, where, targets) - self.fakes[where]).unflatten(1, (-1, 3))

    def _edit(self, image: Tensor, where: Tensor | None, targets: Targets) -> Tensor:
        if where is not None:
            image = F.grid_sample(image, where, padding_mode="border", align_corners=False)
        return self.protector.all_edits(image, targets)


def other_alignment(size: int, random: torch.Generator, error: float) -> Tensor:
    """Return a sampling grid (1, s, s, 2) that imitates the alignment by another eye detector.

    Shift, rotation and zoom are drawn uniformly, up to ``error`` × `SHIFT`, `TURN` and `ZOOM`. In a
    crop of 128 px, ``error`` is about the root mean square distance in px.
    """
    turn, zoom, *shift = ((2 * v - 1) * error for v in torch.rand(4, generator=random).tolist())
    turn, zoom = TURN * turn, 1 + ZOOM * zoom
    cos, sin = zoom * math.cos(turn), zoom * math.sin(turn)
    x, y = (SHIFT * v * 2 / size for v in shift)
    theta = torch.tensor([[[cos, -sin, x], [sin, cos, y]]])
    return F.affine_grid(theta, [1, 3, size, size], align_corners=False)


def _spread(
    part: Image.Image, origin: Point, place: Place, delta: Tensor, mask: Tensor
) -> Image.Image:
    """Return the part of an upright photo at ``origin`` with a perturbation over its pixels.

    ``delta`` is (3, s, s) in [-1, 1] units. Where M (1, s, s) is below `UNTOUCHED`, bits are kept.
    """
    pixels = np.array(part)
    layers = torch.cat([delta * 127.5, mask])[None]
    rows = max(1, BAND // part.width)
    for top in range(0, part.height, rows):
        band = pixels[top : top + rows]
        y, x = np.mgrid[top : top + len(band), : part.width] + 0.5
        points = (x + 1j * y + complex(*origin) - place.b) / place.a / place.size * 2 - 1 - 1j
        where = torch.from_numpy(np.stack([points.real, points.imag], -1)).float()[None]
        values = F.grid_sample(layers, where, align_corners=False)[0].permute(1, 2, 0).numpy()
        change = np.where(values[..., 3:] >= UNTOUCHED, values[..., :3], 0)
        band[:] = (band + change).round().clip(0, 255)
    return Image.fromarray(pixels)
