"""The perturbation of one face, through alignment and compression."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..attacks import Attack
from ..errors import one_of
from ..faces.alignment import Point
from ..faces.sets import DEFAULT_LABELS
from ..generators import ATTRIBUTES, GENERATORS, EditSet, StarGAN, edits_of, load_generator
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
SEAM = 8  # px of the grid over which the perturbation fades out at the crop's edge
SHIFT, TURN, ZOOM = 2.0, 0.03, 0.03  # px of the grid, radians, ratio: how alignments differ
BAND = 1 << 21  # photo pixels computed at once: bounds the memory of a huge face
Encoded = Callable[[Tensor], Tensor]  # a perturbation to what g sees of it in the JPEG


@dataclass(frozen=True, kw_only=True)
class Protector:
    """The models and the strength, loaded once for many photos."""

    generator: Generator  # g(·), the generator to protect against
    generator_name: str  # for reports
    saliency: Saliency  # f_sa(·)
    image_size: int  # side s of what g sees, in pixels
    strength: str  # a key of `STRENGTHS`
    attack: Attack  # the attacker of that strength, or your own
    device: torch.device  # of the two networks
    edits: EditSet = StarGAN.edits  # all that g can be asked for; attacked together

    def targets(self) -> Tensor:
        """Return the (K, …) targets of g's K edits for a face labelled `DEFAULT_LABELS`."""
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

        M is zero where the saliency (or ``given``) is too low to change any 8-bit value. It fades
        to zero at the crop's edges so that no seam shows.
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


def protect_face(
    photo: Photo,
    place: Place,
    mask: Tensor,
    protector: Protector,
    form: str,
    on_step: Callable[[int], object] | None,
    region: Image.Image | None,
) -> None:
    """Disrupt one face in the photo's pixels.

    Args:
        photo: changed in place.
        place: of the face.
        mask: M, (1, 1, s, s) in [0, 1].
        protector: the models and the strength.
        form: of the written file; the compression of a "JPEG" is part of the attack.
        on_step: called with the number of gradients so far.
        region: RGB of the photo's size; pixels that are black in it keep their bits.
    """
    box = photo.in_blocks(place.box(photo.pixels.size))
    before = photo.pixels.crop(box)

    def encoded(delta: Tensor) -> Tensor:
        part = photo.through_jpeg(_spread(before, box[:2], place, delta[0].cpu(), mask[0]))
        return place.crop(part, box[:2])

    x0 = place.crop(photo.pixels)  # faces protected earlier may overlap this one
    view = _View(x0.to(protector.device), place, protector, encoded if form == "JPEG" else None)
    steps, targets = count(1), protector.targets()
    tick = on_step and (lambda _: on_step(next(steps)))
    x = protector.attack(view, view.x0, targets, mask.to(protector.device), on_gradient=tick)
    after = _spread(before, box[:2], place, (x - view.x0)[0].cpu(), mask[0])
    white = None if region is None else region.crop(box).convert("L").point(lambda v: 255 * (v > 0))
    photo.pixels.paste(after, box[:2], white)


@dataclass
class _View:
    """A generator for `Attack`: the change of the edits, which is zero without a perturbation.

    For a JPEG it compares compressed to compressed, so that compression alone is no change.
    """

    x0: Tensor
    place: Place
    protector: Protector
    encoded: Encoded | None

    def __post_init__(self) -> None:
        self.shown, self.clean = self.place.shown().to(self.x0), self.x0
        if self.encoded is not None:
            self.clean = self.encoded(torch.zeros_like(self.x0)).to(self.x0)
        self.random = torch.Generator().manual_seed(self.protector.attack.seed)

    def __call__(self, x: Tensor, target: Tensor) -> Tensor:
        """Map one perturbed crop (1, 3, s, s) to the change of its K fakes (K, 3, s, s)."""
        delta = x - self.x0
        view = (self.x0 + self.shown @ delta @ self.shown.T).clamp(-1, 1)
        if self.encoded is not None:
            file = self.encoded(delta.detach()).to(view)
            if torch.equal(file, self.clean):  # all was rounded away: keep the gradient alive
                view = view - self.x0 + self.clean
            else:  # straight through: the file's pixels, the gradient of the linear path
                view = view + (file - view).detach()
        where = self._alignment().to(view)
        clean, changed = (
            F.grid_sample(image, where, padding_mode="border", align_corners=False)
            for image in (self.clean, view)
        )
        shape = (len(target), -1, -1, -1)
        with torch.no_grad():
            fakes = self.protector.generator(clean.expand(shape), target)
        return self.protector.generator(changed.expand(shape), target) - fakes

    def _alignment(self) -> Tensor:
        """Return a sampling grid (1, s, s, 2) such as another detector's eyes would give."""
        size = self.x0.shape[-1]
        turn, zoom, *shift = (torch.rand(4, generator=self.random) * 2 - 1).tolist()
        turn, zoom = TURN * turn, 1 + ZOOM * zoom
        cos, sin = zoom * math.cos(turn), zoom * math.sin(turn)
        x, y = (SHIFT * v * 2 / size for v in shift)
        theta = torch.tensor([[[cos, -sin, x], [sin, cos, y]]])
        return F.affine_grid(theta, [1, 3, size, size], align_corners=False)


def _spread(
    part: Image.Image, origin: Point, place: Place, delta: Tensor, mask: Tensor
) -> Image.Image:
    """Return the part of a photo at ``origin`` with a perturbation spread over its pixels.

    Args:
        part: RGB; unchanged.
        origin: left and top of the part in the upright photo.
        place: of the grid.
        delta: (3, s, s) in [-1, 1] units.
        mask: M, (1, s, s); pixels where it is below `UNTOUCHED` keep their bits.
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
