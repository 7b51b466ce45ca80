"""CartoonGAN's generator (Chen et al., CVPR 2018): a photo in the style of an animated film.

Names and sizes are those of the authors' PyTorch files, ``<Style>_net_G_float.pth``, and of the
folders of ``.npy`` files made from them. It is unconditional.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Size, Tensor, nn

from .editor import Editor
from .layers import InstanceNorm2d, reflecting


class CartoonGAN(Editor):
    """CartoonGAN's generator, which works on BGR: a photo to its cartoon, both RGB.

    Args:
        width: channels of the first layer; 64 as published (11,129,667 parameters).
        blocks: residual blocks; 8 as published.
    """

    def __init__(self, width: int = 64, blocks: int = 8) -> None:
        super().__init__()
        self.blocks, w = blocks, width

        def conv(name: str, *sizes: int) -> None:
            self.add_module(name, reflecting(*sizes))

        def norm(name: str, channels: int) -> None:
            # The authors add 1e-9 to the deviation; a flat image's gradient would overflow.
            self.add_module(name, InstanceNorm2d(channels, eps=1e-9, affine=True))

        conv("conv01_1", 3, w, 7)
        norm("in01_1", w)
        for i in (2, 3):
            conv(f"conv{i:02}_1", w, 2 * w, 3, 2)
            conv(f"conv{i:02}_2", 2 * w, 2 * w)
            norm(f"in{i:02}_1", 2 * w)
            w *= 2
        for i in range(4, 4 + blocks):
            for half in (1, 2):
                conv(f"conv{i:02}_{half}", w, w)
                norm(f"in{i:02}_{half}", w)
        for i in (1, 2):
            up = nn.ConvTranspose2d(w, w // 2, 3, 2, 1, output_padding=1)
            self.add_module(f"deconv{i:02}_1", up)
            conv(f"deconv{i:02}_2", w // 2, w // 2)
            norm(f"in{3 + blocks + i:02}_1", w // 2)
            w //= 2
        conv("deconv03_1", w, 3, 7)

    def _edit(self, images: Tensor) -> Tensor:
        layer = self._modules
        x = F.relu(layer["in01_1"](layer["conv01_1"](images.flip(1))))
        for i in ("02", "03"):
            x = layer[f"conv{i}_2"](layer[f"conv{i}_1"](x))
            x = F.relu(layer[f"in{i}_1"](x))
        for i in range(4, 4 + self.blocks):
            y = F.relu(layer[f"in{i:02}_1"](layer[f"conv{i:02}_1"](x)))
            x = x + layer[f"in{i:02}_2"](layer[f"conv{i:02}_2"](y))
        for i in (1, 2):
            x = layer[f"deconv{i:02}_2"](layer[f"deconv{i:02}_1"](x))
            x = F.relu(layer[f"in{3 + self.blocks + i:02}_1"](x))
        return torch.tanh(layer["deconv03_1"](x)).flip(1)

    @staticmethod
    def prepare(state: Mapping) -> Mapping:
        """Return the parameters, the normalisations' scale and shift under torch's names."""
        ours = {".scale": ".weight", ".shift": ".bias"}
        return {key[:-6] + ours.get(key[-6:], key[-6:]): value for key, value in state.items()}

    @staticmethod
    def _sizes(shapes: Mapping[str, Size]) -> tuple:
        numbers = [int(key[4:6]) for key in shapes if key.startswith("conv")]
        return shapes["conv01_1.weight"][0], max(numbers) - 3
