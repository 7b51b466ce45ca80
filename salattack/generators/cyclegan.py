"""CycleGAN's generator (Zhu et al., ICCV 2017) as published, at any width and depth.

Names and sizes are those of the authors' PyTorch code, pytorch-CycleGAN-and-pix2pix, without
dropout. It is unconditional: it makes the one edit that it was trained for.
"""

from collections.abc import Mapping

from torch import Size, Tensor, nn

from .editor import STATISTICS, Editor, ImageConv2d, Residual, normalised


class CycleGAN(Editor):
    """CycleGAN's ResNet generator: an image to its translation.

    ``width`` are the first layer's channels. As published for 256 px it has 11.38 M parameters.
    """

    dropped = STATISTICS

    def __init__(self, width: int = 64, blocks: int = 9) -> None:
        super().__init__()
        w = width

        def reflected(conv: nn.Conv2d) -> list[nn.Module]:
            return [nn.ReflectionPad2d(conv.kernel_size[0] // 2), *normalised(conv)]

        layers = reflected(ImageConv2d(3, w, 7))
        layers += normalised(nn.Conv2d(w, 2 * w, 3, 2, 1))
        layers += normalised(nn.Conv2d(2 * w, 4 * w, 3, 2, 1))
        for _ in range(blocks):
            convs = (nn.Conv2d(4 * w, 4 * w, 3) for _ in range(2))
            layers.append(Residual("conv_block", *map(reflected, convs)))
        layers += normalised(nn.ConvTranspose2d(4 * w, 2 * w, 3, 2, 1, output_padding=1))
        layers += normalised(nn.ConvTranspose2d(2 * w, w, 3, 2, 1, output_padding=1))
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(w, 3, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def _edit(self, images: Tensor) -> Tensor:
        return self.model(images)

    @staticmethod
    def _sizes(shapes: Mapping[str, Size]) -> tuple:
        blocks = sum(key.endswith(".conv_block.1.weight") for key in shapes)
        return shapes["model.1.weight"][0], blocks
