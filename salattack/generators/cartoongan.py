"""CartoonGAN's generator (Chen et al., CVPR 2018): a photo in the style of an animated film.

Names and sizes are those of the authors' PyTorch files, ``<Style>_net_G_float.pth``, and of the
folders of ``.npy`` files made from them. It is unconditional.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Size, Tensor, nn

from .editor import Editor, InstanceNorm2d, reflecting


class CartoonGAN(Editor):
    """CartoonGAN's generator, which works on BGR: a photo to its cartoon, both RGB.

    ``width`` are the first layer's channels. As published it has 11,129,667 parameters.
    """

    renamed = ((r"\.scale$", ".weight"), (r"\.shift$", ".bias"))  # of the normalisations

    def __init__(self, width: int = 64, blocks: int = 8) -> None:
        super().__init__()
        w = width

        def conv(name: str, *sizes: int) -> None:
            self.add_module(f"conv{name}", reflecting(*sizes))

        def norm(name: str, channels: int) -> None:
            # The authors add 1e-9 to the deviation; a flat image's gradient would overflow.
            self.add_module(f"in{name}", InstanceNorm2d(channels, eps=1e-9, affine=True))

        conv("01_1", 3, w, 7)
        norm("01_1", w)
        for i in (2, 3):
            conv(f"{i:02}_1", w, 2 * w, 3, 2)
            conv(f"{i:02}_2", 2 * w, 2 * w)
            norm(f"{i:02}_1", 2 * w)
            w *= 2
        for i in range(4, 4 + blocks):
            for half in (1, 2):
                conv(f"{i:02}_{half}", w, w)
                norm(f"{i:02}_{half}", w)
        for i in (1, 2):
            up = nn.ConvTranspose2d(w, w // 2, 3, 2, 1, output_padding=1)
            self.add_module(f"deconv{i:02}_1", up)
            self.add_module(f"deconv{i:02}_2", reflecting(w // 2, w // 2))
            norm(f"{3 + blocks + i:02}_1", w // 2)
            w //= 2
        self.add_module("deconv03_1", reflecting(w, 3, 7))

    def _edit(self, images: Tensor) -> Tensor:
        x = images.flip(1)
        for name, layer in self.named_children():
            if name.startswith("conv") and name.endswith("_1"):
                skip = x
            x = layer(x)
            if name.startswith("in"):  # the second one of a number ends a residual block
                x = skip + x if name.endswith("_2") else F.relu(x)
        return torch.tanh(x).flip(1)

    @staticmethod
    def _sizes(shapes: Mapping[str, Size]) -> tuple:
        numbers = [int(key[4:6]) for key in shapes if key.startswith("conv")]
        return shapes["conv01_1.weight"][0], max(numbers) - 3
