"""The change of the photo (§ IV-C), and the damage to the fake, which the paper does not measure.

All images are float tensors (N, 3, H, W) in [-1, 1], and all results are (N,) tensors in the same
units. `as_saved` rounds a picture to 8 bits, as a user would save it.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from .objective import SUCCESS

BACKGROUND = 0.5  # saliency below which a pixel counts as background
Features = Callable[[Tensor], Sequence[Tensor]]


def photo_change(
    photo: Tensor, perturbed: Tensor, saliency_map: Tensor, features: Features | None = None
) -> dict[str, Tensor]:
    """Compare the disrupted photo to the photo, over the whole image and over its background.

    Args:
        photo: I_org.
        perturbed: I_ptb.
        saliency_map: M, (N, 1, H, W) in [0, 1]; the background is where it is below `BACKGROUND`.
        features: for `feature_distance`; without them it is left out.

    Returns:
        ``l1`` (mean absolute), ``l2`` (mean squared, as in Table I before its × 100), ``linf``,
        ``psnr`` in dB and ``ssim``. The same of the background as ``background_…``, NaN if an
        image has none. With features, ``feature_distance``.
    """
    difference = (perturbed - photo).abs()
    _, ssim = structural_similarity_index_measure(
        perturbed, photo, data_range=(-1.0, 1.0), reduction="none", return_full_image=True
    )
    everywhere = torch.ones_like(saliency_map)
    change: dict[str, Tensor] = {}
    for prefix, region in (("", everywhere), ("background_", (saliency_map < BACKGROUND).float())):
        l2 = _mean(difference.square(), region)
        present = region.flatten(1).amax(1) > 0
        linf = (difference * region).flatten(1).amax(1).where(present, l2.new_tensor(torch.nan))
        change |= {
            f"{prefix}l1": _mean(difference, region),
            f"{prefix}l2": l2,
            f"{prefix}linf": linf,
            f"{prefix}psnr": 10 * torch.log10(4 / l2),  # the peak of [-1, 1] is 2
            f"{prefix}ssim": _mean(ssim, region),
        }
    if features is not None:
        change["feature_distance"] = feature_distance(photo, perturbed, features)
    return change


def fake_damage(
    fake: Tensor, broken: Tensor, photo: Tensor | None = None, features: Features | None = None
) -> dict[str, Tensor]:
    """Compare g(I_ptb) to g(I_org).

    Args:
        fake: g(I_org), (N, 3 K, H, W) for K edits.
        broken: g(I_ptb), the same.
        photo: I_org, for the measures that compare with the edit; without it they are left out.
        features: for ``damage_features``; without them it is left out.

    Returns:
        ``damage_l1``, ``damage_l2`` (mean squared) and ``success``, which is 1 if ``damage_l2``
        exceeds `SUCCESS`, else 0 (Ruiz et al.). With the photo:

        - ``damage_edited``: the mean square weighted by how much the edit changes each pixel,
          |g(I_org) - I_org|. CMUA averages over the pixels above a threshold instead, which a
          faint edit never reaches.
        - ``edit_l2``: the mean square of the edit's change of the photo.
        - ``edit_left``: the mean square of g(I_ptb) - I_org divided by ``edit_l2``; 0 for a
          nullified edit.

        With features, ``damage_features``: `feature_distance` averaged over the edits.
    """
    difference = (broken - fake).abs().flatten(1)
    l2 = difference.square().mean(1)
    damage = {"damage_l1": difference.mean(1), "damage_l2": l2, "success": (l2 > SUCCESS).float()}
    if photo is not None:
        photo = photo.repeat(1, fake.shape[1] // 3, 1, 1)
        edit = (fake - photo).abs().unflatten(1, (-1, 3)).mean(2).repeat_interleave(3, 1)
        damage["damage_edited"] = _mean((broken - fake).square(), edit)
        left, clean = ((image - photo).square().flatten(1).mean(1) for image in (broken, fake))
        damage |= {"edit_l2": clean, "edit_left": left / clean}
    if features is not None:
        damage["damage_features"] = feature_distance(fake, broken, features) / (fake.shape[1] // 3)
    return damage


def feature_distance(first: Tensor, second: Tensor, features: Features) -> Tensor:
    """Return a perceptual distance, a stand-in for LPIPS that needs no download.

    It has the form of LPIPS (Zhang et al., CVPR 2018) with uniform channel weights: features are
    scaled to unit length across channels, and their squared difference is averaged over space and
    summed over layers. The features are those of the light PFAN's backbone. The values can rank
    pictures, but they are not comparable to published LPIPS values.
    """
    with torch.no_grad():
        difference = unit_features(first, features) - unit_features(second, features)
    return difference.square().sum(1)


def unit_features(images: Tensor, features: Features) -> Tensor:
    """Return the features that `feature_distance` compares, (N, K) for (N, 3, H, W) images.

    They are differentiable. Each layer's features have unit length across channels, divided by the
    root of the number of positions. The sum of their squared differences is the distance.
    """
    pictures = images.unflatten(1, (-1, 3)).flatten(0, 1)  # one edit or several
    layers = [torch.nn.functional.normalize(f, dim=1) for f in features(pictures)]
    parts = [f.flatten(1) / (f.shape[-2] * f.shape[-1]) ** 0.5 for f in layers]
    return torch.cat(parts, 1).reshape(len(images), -1)


def _mean(values: Tensor, region: Tensor) -> Tensor:
    weight = region.expand_as(values).flatten(1)
    return (values.flatten(1) * weight).sum(1) / weight.sum(1)  # NaN for an empty region
