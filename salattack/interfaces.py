"""All that an attack sees of a network: the protocols of g and f_sa."""

from typing import Protocol

from torch import Tensor


class Saliency(Protocol):
    """All that an attack sees of a saliency model."""

    def __call__(self, images: Tensor) -> Tensor:
        """Map (N, 3, H, W) images in [-1, 1] to soft maps (N, 1, H, W) in [0, 1]."""
        ...


class Generator(Protocol):
    """All that an attack sees of a face-editing model."""

    def __call__(self, images: Tensor, target: Tensor) -> Tensor:
        """Edit (N, 3, H, W) images in [-1, 1]; same shape and range.

        ``target`` has one row per image, of whatever the model takes: StarGAN (N, 5) labels,
        AttGAN (N, 13) attributes, GANimation (N, 17) action units, StarGAN v2 (N, 64) style
        codes; others may take class indices (N,) or reference images. CycleGAN ignores it.
        """
        ...
