"""Where a perturbation may go: soft maps in [0, 1], by name, for the mask ablation.

The paper uses "saliency", PFAN's map as it is (Eq. 1). Eq. 2 multiplies the photo by this map, and
Eq. 4 the perturbation, which is what `salattack.attacks` does. Each region is a function of the
photos I_org, (N, 3, H, W) in [-1, 1], their fakes g(I_org), (N, 3 K, H, W) for K edits, and the
saliency map M, (N, 1, H, W). It returns a map of M's shape.
"""

import zlib
from collections.abc import Callable

import torch
from torch import Tensor

from .blur import Blur
from .errors import SalattackError

THRESHOLD = 0.5  # of the binary map
WINDOW, C = Blur("gaussian", 11, 1.5), (0.03 * 2) ** 2  # SSIM's own (Wang et al., TIP 2004)
SMOOTH = 0.005  # κ of `texture`: how much more a change costs in smooth areas


def _ellipse(photos: Tensor, fakes: Tensor, saliency_map: Tensor) -> Tensor:
    """Return CelebA's mean face as an ellipse, in the geometry of its aligned crops."""
    height, width = photos.shape[-2:]
    y = (torch.arange(height, device=photos.device) + 0.5) / height
    x = (torch.arange(width, device=photos.device) + 0.5) / width
    inside = ((x - 0.5) / 0.27) ** 2 + ((y[:, None] - 0.58) / 0.37) ** 2 <= 1
    return inside.to(photos).expand_as(saliency_map)


def _random(photos: Tensor, fakes: Tensor, saliency_map: Tensor) -> Tensor:
    """Return M with its values shuffled: the same area and the same values at random places."""
    shuffled = []
    for photo, values in zip(photos.cpu(), saliency_map, strict=True):
        source = torch.Generator().manual_seed(zlib.crc32(photo.contiguous().numpy().tobytes()))
        order = torch.randperm(values.numel(), generator=source).to(values.device)
        shuffled.append(values.flatten()[order].view_as(values))
    return torch.stack(shuffled)


def _edited(photos: Tensor, fakes: Tensor, saliency_map: Tensor) -> Tensor:
    """Return where the generator changes the photo, |g(x) − x|, scaled to a maximum of 1."""
    fakes = fakes.unflatten(1, (-1, 3))  # of one edit or of several
    change = (fakes - photos[:, None]).abs().mean((1, 2))[:, None]
    return change / change.flatten(1).amax(1).clamp(min=1e-8)[:, None, None, None]


REGIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "saliency": lambda photos, fakes, m: m,
    "binary": lambda photos, fakes, m: (m >= THRESHOLD).to(m),
    "complement": lambda photos, fakes, m: 1 - m,
    "ellipse": _ellipse,
    "random": _random,
    "edited": _edited,
    "salient-edited": lambda photos, fakes, m: m * _edited(photos, fakes, m),
}


def checked_map(saliency_map: Tensor, images: Tensor) -> Tensor:
    """Return M (N, 1, H, W) on the images' device, detached.

    Raises:
        SalattackError: another shape than the images', NaN, or values outside [0, 1].
    """
    wanted = (len(images), 1, *images.shape[-2:])
    if saliency_map.shape != wanted:
        raise SalattackError(
            f"the saliency_map is {tuple(saliency_map.shape)}, it must be {wanted} for these images"
        )
    if not ((saliency_map >= 0) & (saliency_map <= 1)).all():
        raise SalattackError("the saliency_map must lie in [0, 1] without NaN")
    return saliency_map.detach().to(images)


def texture(images: Tensor, mask: Tensor) -> Tensor:
    """Return how well each pixel hides a change, (N, 1, H, W): √M / (1 + κ / (2σ² + C)).

    SSIM falls by about |δ|² / (2σ² + C), where σ² is the local variance: a change shows in smooth
    skin and hides in hair. κ is `SMOOTH`, and M is ``mask``. If the squared norm of δ is
    Σ δ² (1 + κ / (2σ² + C)) / √M, the direction of steepest ascent is the gradient times this map.

    κ and the root of M were chosen on 12 CelebA faces. ``figures/celeba/smallest_change.md``
    compares this weight with M alone: SSIM is higher, and L1 is not lower.
    """
    mean = WINDOW(images)
    variance = (WINDOW(images.square()) - mean.square()).clamp(min=0).mean(1, keepdim=True)
    return mask.sqrt() / (1 + SMOOTH / (2 * variance + C))


def per_image(values: Tensor) -> Tensor:
    """Return each image's mean (N, 1, 1, 1), kept above zero."""
    return values.flatten(1).mean(1).clamp(min=1e-30)[:, None, None, None]


def within_ball(radius: float | Tensor | None, clean: Tensor, x: Tensor) -> Tensor:
    """Project x on the L2 ball around ``clean``; the radius is a root mean square, or None."""
    if radius is None:
        return x
    size = per_image((x - clean).square()).sqrt()
    return torch.lerp(clean, x, (radius / size).clamp(max=1))
