"""StarGAN's generator exactly as published (Choi et al., CVPR 2018), at any width."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..edits import LABEL_EDITS
from ..runtime.weights import shape_of, without_statistics
from .layers import ImageConv2d, InstanceNorm2d, require_sides, require_target


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with instance normalisation around an identity skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            InstanceNorm2d(channels, affine=True),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            InstanceNorm2d(channels, affine=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        return x + self.main(x)


class StarGAN(nn.Module):
    """StarGAN's generator: an image and a target label vector to the edited image.

    Instance statistics are always used. The published checkpoint carries running statistics,
    which the authors' test code never uses either; loading drops them.

    Args:
        conv_dim: channels of the first layer; 64 as published (8.43 M parameters).
        c_dim: length of the label vector.
        repeat_num: residual blocks.
    """

    def __init__(self, conv_dim: int = 64, c_dim: int = 5, repeat_num: int = 6) -> None:
        super().__init__()
        self.c_dim = c_dim

        def block(conv: nn.Module) -> list[nn.Module]:
            norm = InstanceNorm2d(conv.out_channels, affine=True)
            return [conv, norm, nn.ReLU()]

        d = conv_dim
        layers = block(ImageConv2d(3 + c_dim, d, 7, 1, 3, bias=False))
        layers += block(nn.Conv2d(d, 2 * d, 4, 2, 1, bias=False))
        layers += block(nn.Conv2d(2 * d, 4 * d, 4, 2, 1, bias=False))
        layers += [ResidualBlock(4 * d) for _ in range(repeat_num)]
        layers += block(nn.ConvTranspose2d(4 * d, 2 * d, 4, 2, 1, bias=False))
        layers += block(nn.ConvTranspose2d(2 * d, d, 4, 2, 1, bias=False))
        layers += [nn.Conv2d(d, 3, 7, 1, 3, bias=False), nn.Tanh()]
        self.main = nn.Sequential(*layers)

    def forward(self, images: Tensor, target: Tensor) -> Tensor:
        """Edit (N, 3, H, W) images in [-1, 1], H and W divisible by 4; same shape and range.

        ``target`` has (N, c_dim) labels, 0 or 1, in the order of `salattack.edits.ATTRIBUTES`.

        Raises:
            SalattackError: sides that 4 does not divide, a target of another shape.
        """
        require_sides("StarGAN", images, 4)
        require_target("StarGAN", images, target, self.c_dim, "labels, 0 or 1")
        labels = target.to(images)[:, :, None, None].expand(-1, -1, *images.shape[-2:])
        return self.main(torch.cat([images, labels], dim=1))


def like(state: Mapping) -> StarGAN:
    """Return a network of the widths that a state dict has."""
    first = shape_of(state, "main.0.weight", 4)
    if first is None or first[1] <= 3:
        return StarGAN()  # does not fit, and `fit` says how
    return StarGAN(conv_dim=first[0], c_dim=first[1] - 3)


prepare = without_statistics  # the authors' test code never uses them either

EDITS = LABEL_EDITS
