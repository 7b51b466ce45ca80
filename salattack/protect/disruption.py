"""The perturbation of one face, through alignment and compression."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..attacks import Attack
from ..errors import one_of
from ..faces.alignment import Point
from ..faces.sets import DEFAULT_LABELS
from ..generators import ATTRIBUTES, EditSet, edits_of, load_generator, stargan
from ..generators.registry import GENERATORS
from ..interfaces import Generator, Saliency
from ..presets import attacker
from ..runtime.device import pick_device
from ..saliency import load_saliency
from .photo_file import Photo
from .placement import Place

STRENGTHS: dict[str, Attack] = {
    name: attacker(
        "saliency-aware", blurs=(), start=0.001, bound=bound, step_size=bound / 10, steps=steps
    )
    for name, bound, steps in (("gentle", 0.1, 25), ("normal", 0.15, 30), ("strong", 0.2, 40))
}
UNTOUCHED = 1 / 255  # saliency below which a pixel keeps its bits
SEAM = 8  # px of the grid over which the perturbation fades out towards the crop's edge
SHIFT, TURN, ZOOM = 2.0, 0.03, 0.03  # px of the grid, radians, ratio: how alignments differ
BAND = 1 << 21  # photo pixels computed at once: bounds the memory of a huge face


@dataclass(frozen=True, kw_only=True)
class Protector:
    """The models and the strength, loaded once for many photos.

    Attributes:
        generator: g(·), what the protection is aimed at.
        generator_name: its name in reports.
        saliency: f_sa(·).
        image_size: side of what g sees, in pixels.
        strength: a key of `STRENGTHS`.
        attack: the attacker of that strength, or one of your own in the salient region.
        device: of the two networks.
        edits: what g can be asked for; all of it is attacked.
    """

    generator: Generator
    generator_name: str
    saliency: Saliency
    image_size: int
    strength: str
    attack: Attack
    device: torch.device
    edits: EditSet = stargan.EDITS

    def targets(self) -> Tensor:
        """Return the (K, …) targets of g's K edits, of a face labelled `DEFAULT_LABELS`."""
        labels = torch.tensor([[float(DEFAULT_LABELS[name]) for name in ATTRIBUTES]])
        return torch.cat(self.edits.targets(self.generator, labels.to(self.device), ["joint"]))

    @torch.no_grad()
    def fakes(self, image: Tensor) -> Tensor:
        """Return the K edits (K, 3, s, s) of one (1, 3, s, s) image in [-1, 1]."""
        targets = self.targets()
        images = image.to(self.device).expand(len(targets), -1, -1, -1)
        return self.generator(images, targets).cpu()

    def mask(self, image: Tensor, given: Tensor | None = None) -> Tensor:
        """Return where a (1, 3, s, s) image may change: M, (1, 1, s, s) in [0, 1].

        Zero where the saliency, or the ``given`` map in its place, is too low to change a bit,
        and fading out at the edges, beyond which the photo goes on unchanged.
        """
        salient = self.saliency(image.to(self.device)).cpu() if given is None else given
        ramp = torch.arange(self.image_size) + 0.5
        ramp = torch.minimum(ramp, ramp.flip(0)).div(SEAM).clamp(max=1)
        salient = salient * ramp * ramp[:, None]
        return salient * (salient >= UNTOUCHED)


def load_protector(
    strength: str = "normal",
    *,
    generator: str = "stargan-celeba128-w32",
    generator_weights: str | None = None,
    saliency: str = "pfan-light",
    saliency_weights: str | None = None,
    device: str = "auto",
) -> Protector:
    """Load the models by name; see `load_generator` and `load_saliency`.

    Raises:
        SalattackError: an unknown name, or files that do not fit.
    """
    if strength not in STRENGTHS:
        raise one_of("strength", strength, STRENGTHS)
    return Protector(
        generator=load_generator(generator, generator_weights, device),
        generator_name=generator,
        saliency=load_saliency(saliency, saliency_weights, device),
        image_size=GENERATORS[generator].image_size,
        strength=strength,
        attack=STRENGTHS[strength],
        device=pick_device(device),
        edits=edits_of(generator),
    )


def _protect_face(
    photo: Photo,
    place: Place,
    mask: Tensor,
    protector: Protector,
    form: str,
    step: Callable[[int], object],
    region: Image.Image | None,
) -> None:
    x0 = place.crop(photo.pixels)
    box = photo.in_blocks(place.box(photo.pixels.size))
    before = photo.pixels.crop(box)

    def encoded(delta: Tensor) -> Tensor:
        part = photo.through_jpeg(_spread(before, box[:2], place, delta[0].cpu(), mask[0]))
        return place.crop(part, box[:2])

    view = _View(x0, place, protector, encoded if form == "JPEG" else None)
    x0, on_device = x0.to(protector.device), mask.to(protector.device)
    x = protector.attack(view, x0, protector.targets(), on_device, on_gradient=step)
    after = _spread(before, box[:2], place, (x - x0)[0].cpu(), mask[0])
    white = None if region is None else region.crop(box).convert("L").point(lambda v: 255 * (v > 0))
    photo.pixels.paste(after, box[:2], white)


class _View:
    """The change of the edits as a generator for `Attack`: zero where nothing is perturbed.

    For a JPEG both sides are compressed, so that compression itself counts as no change.
    """

    def __init__(
        self,
        x0: Tensor,
        place: Place,
        protector: Protector,
        encoded: Callable[[Tensor], Tensor] | None,
    ) -> None:
        self.x0, self.protector, self.encoded = x0.to(protector.device), protector, encoded
        self.shown = place.shown().to(protector.device)
        self.clean = self.x0
        if encoded is not None:
            self.clean = encoded(torch.zeros_like(x0)).to(self.x0)
        self.random = torch.Generator().manual_seed(protector.attack.seed)

    def __call__(self, x: Tensor, target: Tensor) -> Tensor:
        """Map one perturbed crop (1, 3, s, s) to the change of its K fakes (K, 3, s, s)."""
        delta = x - self.x0
        view = (self.x0 + self.shown @ delta @ self.shown.T).clamp(-1, 1)
        if self.encoded is not None:
            file = self.encoded(delta.detach()).to(view)
            if torch.equal(file, self.clean):  # rounded away: without this no step would ever move
                view = view - self.x0 + self.clean
            else:  # straight through: the file's pixels, the linear gradient
                view = view + (file - view).detach()
        where = self._alignment().to(view)
        edit = self.protector.generator
        with torch.no_grad():
            clean = edit(_moved(self.clean, where).expand(len(target), -1, -1, -1), target)
        return edit(_moved(view, where).expand(len(target), -1, -1, -1), target) - clean

    def _alignment(self) -> Tensor:
        """Return a sampling grid (1, s, s, 2) as another detector's eyes would give."""
        size = self.x0.shape[-1]
        turn, zoom, *shift = (torch.rand(4, generator=self.random) * 2 - 1).tolist()
        turn, zoom = TURN * turn, 1 + ZOOM * zoom
        cos, sin = zoom * math.cos(turn), zoom * math.sin(turn)
        x, y = (SHIFT * v * 2 / size for v in shift)
        theta = torch.tensor([[[cos, -sin, x], [sin, cos, y]]])
        return F.affine_grid(theta, [1, 3, size, size], align_corners=False)


def _moved(image: Tensor, where: Tensor) -> Tensor:
    return F.grid_sample(image, where, padding_mode="border", align_corners=False)


def _spread(
    part: Image.Image, origin: Point, place: Place, delta: Tensor, mask: Tensor
) -> Image.Image:
    """Return the part of a photo at ``origin`` with the perturbation spread over its pixels.

    Args:
        part: RGB; unchanged.
        origin: left and top of the part in the upright photo.
        place: where the grid lies.
        delta: (3, s, s) in [-1, 1] units.
        mask: M, (1, s, s); where it comes to less than `UNTOUCHED`, pixels keep their bits.
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
