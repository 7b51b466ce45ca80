"""The two networks g and f_sa, loaded by name for experiments and for `protect`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .edits import LABEL_EDITS, EditSet, Targets
from .generators import GENERATORS
from .interfaces import Generator, Saliency
from .runtime.device import pick_device
from .saliency import SALIENCY_MODELS


@dataclass(frozen=True, kw_only=True)
class Models:
    """The two networks, with the edits, image size and device that belong to them."""

    generator: Generator  # g(·)
    edits: EditSet = LABEL_EDITS  # what g can be asked for, and how
    saliency: Saliency  # f_sa(·), images to maps (Eq. 1)
    image_size: int = 128  # side in pixels that g was trained for
    device: torch.device  # of the two networks
    origin: Mapping[str, object] = field(default_factory=dict)  # name and checksum of each model

    def targets(self, labels: Tensor, edits: Sequence[str]) -> Targets:
        """Return g's targets for faces with (N, 5) labels, see `EditSet.targets`.

        Raises:
            SalattackError: an edit that g does not support.
        """
        return self.edits.targets(self.generator, labels, edits)

    @torch.no_grad()
    def generate(self, images: Tensor, target: Targets) -> Tensor:
        """Return g(images) for (N, 3, H, W) images in [-1, 1], without gradients.

        A tuple of K targets asks for K edits of each image: (N, 3 K, H, W).
        """
        return self.all_edits(images, target)

    def all_edits(self, images: Tensor, target: Targets) -> Tensor:
        """Return the same as `generate`, differentiable."""
        if not isinstance(target, tuple):
            return self.generator(images, target)
        return torch.cat([self.generator(images, one) for one in target], 1)

    @torch.no_grad()
    def saliency_map(self, images: Tensor) -> Tensor:
        """Return M (N, 1, H, W) in [0, 1] of (N, 3, H, W) images in [-1, 1]."""
        return self.saliency(images)


def load_models(
    *,
    generator: str = "stargan-celeba128-w32",
    generator_weights: str | None = None,
    generator_options: Mapping[str, object] | None = None,
    saliency: str = "pfan-light",
    saliency_weights: str | None = None,
    device: str = "auto",
) -> Models:
    """Load both networks by name, see `load_generator` (and its options) and `load_saliency`.

    Raises:
        SalattackError: an unknown name or device, or a file that does not fit.
    """
    options = dict(generator_options or {})
    g = GENERATORS.load(generator, generator_weights, device, **options)
    f_sa = SALIENCY_MODELS.load(saliency, saliency_weights, device)
    return Models(
        generator=g.network,
        edits=g.edits,
        saliency=f_sa.network,
        image_size=g.image_size,
        device=pick_device(device),
        origin={
            "generator": [generator, g.sha256, *([options] if options else [])],
            "saliency": [saliency, f_sa.sha256],
        },
    )
