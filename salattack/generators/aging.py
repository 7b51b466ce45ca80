"""AgingGAN's generator ("Fast-AgingGAN", HasnainRaz, 2020): a face at another age.

A MobileNetV2 trunk between two halvings. The published file is Keras' HDF5.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Size, Tensor, nn

from ..edits import EditSet
from .editor import Editor, ImageConv2d, joined

AGES = ("Age_10-19", "Age_20-29", "Age_30-39", "Age_40-49", "Age_50+")
EPS = 1e-3  # Keras' of batch normalisation


class _Inverted(nn.Module):
    """MobileNetV2's inverted residual; the first of a network does not expand."""

    def __init__(self, width: int, inside: int, expands: bool) -> None:
        super().__init__()
        if expands:
            self.expand, self.expand_BN = nn.Conv2d(width, inside, 1), nn.BatchNorm2d(inside, EPS)
        self.depthwise = nn.Conv2d(inside, inside, 3, padding=1, groups=inside)
        self.depthwise_BN = nn.BatchNorm2d(inside, EPS)
        self.project, self.project_BN = nn.Conv2d(inside, width, 1), nn.BatchNorm2d(width, EPS)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.expand_BN(self.expand(x))) if hasattr(self, "expand") else x
        y = F.relu(self.depthwise_BN(self.depthwise(y)))
        return x + self.project_BN(self.project(y))


class AgingGAN(Editor):
    """AgingGAN's generator: an image and an age group to the face at that age.

    ``width`` are the channels outside the inverted residuals, ``inside`` those in the ones that
    expand. As published it has 69,171 parameters.
    """

    columns, asked = 1, "an age group from 0 to 4"  # in the order of `AGES`
    renamed = (  # the layer and the array at the end of Keras' path
        (r"^.*/([^/]+)/([^/:]+)(:0)?$", r"\1.\2"),
        *((rf"^conv2d_{5 + i}\.", f"convs.{i}.") for i in range(6)),
        *((rf"^batch_normalization_{3 + i}\.", f"norms.{i}.") for i in range(3)),
        *((r"^expanded_conv_", "blocks.0."), (r"^block_(\d+)_", r"blocks.\1.")),
        *((r"\.((depthwise_)?kernel|gamma)$", ".weight"), (r"\.beta$", ".bias")),
        *((r"\.moving_mean$", ".running_mean"), (r"\.moving_variance$", ".running_var")),
    )

    def __init__(self, width: int = 24, inside: int = 144, blocks: int = 6) -> None:
        super().__init__()
        same = [nn.Conv2d(width, width, 3, 2) for _ in range(2)]
        same += [nn.Conv2d(width, width, 3, padding=1) for _ in range(2)]
        last = nn.Conv2d(width, 3, 3, padding=1)
        self.convs = nn.ModuleList([ImageConv2d(4, width, 3, padding=1), *same, last])
        self.norms = nn.ModuleList(nn.BatchNorm2d(width, EPS) for _ in range(3))
        self.blocks = nn.Sequential(
            *(_Inverted(width, inside if i else width, i > 0) for i in range(blocks))
        )

    def _edit(self, images: Tensor, target: Tensor) -> Tensor:
        x = skip = F.leaky_relu(self.norms[0](self.convs[0](joined(images, target))), 0.3)
        for i in (1, 2):
            x = F.pad(x, (0, 1, 0, 1))  # as Keras' "same" pads where it halves
            x = F.leaky_relu(self.norms[i](self.convs[i](x)), 0.3)
        x = self.blocks(x)
        for i in (3, 4):
            x = F.leaky_relu(self.convs[i](F.interpolate(x, scale_factor=2)), 0.3)
        return torch.tanh(self.convs[5](x + skip))

    def _target(self, labels: Tensor, edit: str) -> Tensor:
        return labels.new_full((len(labels), 1), AGES.index(edit))

    edits = EditSet(AGES, _target)

    @classmethod
    def prepare(cls, state: Mapping) -> dict:
        """Return Keras' arrays under our names, and its kernels in torch's order."""
        state = dict(state)
        for key, value in state.items():
            if "/" in key and value.ndim == 4:  # height, width, in, out; of a depthwise one out, 1
                order = (2, 3, 0, 1) if "depthwise" in key else (3, 2, 0, 1)
                state[key] = value.permute(order).contiguous()
        return super().prepare(state)

    @staticmethod
    def _sizes(shapes: Mapping[str, Size]) -> tuple:
        width = shapes["convs.0.weight"][0]
        inside = shapes.get("blocks.1.expand.weight", (width,))[0]
        return width, inside, sum(key.endswith(".project.weight") for key in shapes)
