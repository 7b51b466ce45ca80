"""StarGAN's generator exactly as published (Choi et al., CVPR 2018), at any width."""

from collections.abc import Mapping
from functools import partial

from torch import Size, Tensor, nn

from ..edits import LABEL_EDITS
from .editor import STATISTICS, Editor, ImageConv2d, Residual, joined, normalised


class StarGAN(Editor):
    """StarGAN's generator: an image and a target vector of ``c_dim`` labels to the edited image.

    ``conv_dim`` are the first layer's channels, ``repeat_num`` the residual blocks. As published
    it has 8.43 M parameters.
    """

    asked = "labels, 0 or 1"  # in the order of `ATTRIBUTES`
    edits = LABEL_EDITS
    dropped = STATISTICS  # which the authors' test code never uses either

    def __init__(self, conv_dim: int = 64, c_dim: int = 5, repeat_num: int = 6) -> None:
        super().__init__()
        self.columns = c_dim
        block, d = partial(normalised, affine=True), conv_dim
        layers = block(ImageConv2d(3 + c_dim, d, 7, 1, 3, bias=False))
        layers += block(nn.Conv2d(d, 2 * d, 4, 2, 1, bias=False))
        layers += block(nn.Conv2d(2 * d, 4 * d, 4, 2, 1, bias=False))
        for _ in range(repeat_num):
            convs = (nn.Conv2d(4 * d, 4 * d, 3, 1, 1, bias=False) for _ in range(2))
            layers.append(Residual("main", *map(block, convs)))
        layers += block(nn.ConvTranspose2d(4 * d, 2 * d, 4, 2, 1, bias=False))
        layers += block(nn.ConvTranspose2d(2 * d, d, 4, 2, 1, bias=False))
        layers += [nn.Conv2d(d, 3, 7, 1, 3, bias=False), nn.Tanh()]
        self.main = nn.Sequential(*layers)

    def _edit(self, images: Tensor, target: Tensor) -> Tensor:
        return self.main(joined(images, target))

    @staticmethod
    def _sizes(shapes: Mapping[str, Size]) -> tuple:
        width, channels, _, _ = shapes["main.0.weight"]
        return width, channels - 3, sum(key.endswith(".main.0.weight") for key in shapes)
