"""The interfaces of the two networks that an attack uses: g and f_sa."""

from typing import Protocol

from torch import Tensor


class Saliency(Protocol):
    """The interface of a saliency model f_sa."""

    def __call__(self, images: Tensor) -> Tensor:
        """Map (N, 3, H, W) images in [-1, 1] to soft maps (N, 1, H, W) in [0, 1]."""
        ...


class Generator(Protocol):
    """The interface of a face-editing model g."""

    def __call__(self, images: Tensor, target: Tensor) -> Tensor:
        """Edit (N, 3, H, W) images in [-1, 1]; same shape and range.

        ``target`` has one row per image. Its kind depends on the model: StarGAN takes (N, 5)
        labels, AttGAN (N, 13) attributes, GANimation (N, 17) action units, StarGAN v2 (N, 64)
        style codes. Others may take class indices (N,) or reference images. CycleGAN ignores it.
        """
        ...
