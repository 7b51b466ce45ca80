"""DPR (Zhou et al., "Deep Single-Image Portrait Relighting", ICCV 2019): a face in another light.

An hourglass network relights the luminance L of Lab; a and b are the photo's. Names and sizes are
those of the authors' file.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from kornia.color import lab_to_rgb, rgb_to_lab
from torch import Size, Tensor, nn

from ..edits import EditSet
from .editor import Editor, ImageConv2d, InstanceNorm2d, shortcut

# Directions (right, up, towards the viewer) that the named lights come from.
DIRECTIONS = {
    "Light_left": (-0.85, 0.3, 0.45),
    "Light_right": (0.85, 0.3, 0.45),
    "Light_above": (0.0, 0.8, 0.6),
    "Light_front": (0.0, 0.2, 1.0),
}


def light(right: float, up: float, front: float) -> list[float]:
    """Return the nine spherical-harmonics coefficients of a soft light from a direction.

    Strength and softness follow the lights of DPR's demonstration, times the 0.7 of its code.
    """
    length = (right**2 + up**2 + front**2) ** 0.5
    x, y, z = right / length, -front / length, up / length  # DPR's axes
    second = (x * y, y * z, (3 * z**2 - 1) / 12**0.5, x * z, (x**2 - y**2) / 2)
    return [0.76, *(0.575 * one for one in (y, z, x)), *(0.58 * two for two in second)]


class _HourglassBlock(nn.Module):
    """A residual block of two 3×3 convolutions, normalised by ``norm``."""

    def __init__(self, a: int, b: int, norm: type[nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(a, b, 3, 1, 1, bias=False)
        self.conv2 = nn.Conv2d(b, b, 3, 1, 1, bias=False)
        self.shortcuts = shortcut(a, b)
        self.bn1, self.bn2 = norm(b), norm(b)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcuts(x))


class _Lighting(nn.Module):
    """Replace the first channels, which carry the photo's light, by those of another light."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.post_FC1 = nn.Conv2d(9, hidden, 1, bias=False)
        self.post_relu1 = nn.PReLU()
        self.post_FC2 = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        lit = F.relu(self.post_FC2(self.post_relu1(self.post_FC1(target[:, :, None, None]))))
        return torch.cat([lit.expand(-1, -1, *x.shape[-2:]), x[:, lit.shape[1] :]], 1)


class _Hourglass(nn.Module):
    """One level of the hourglass around the next."""

    def __init__(self, outer: int, inner: int, middle: nn.Module) -> None:
        super().__init__()
        self.upper, self.middle = _HourglassBlock(outer, outer, InstanceNorm2d), middle
        self.low1 = _HourglassBlock(outer, inner, nn.BatchNorm2d)
        self.low2 = _HourglassBlock(inner, outer, InstanceNorm2d)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        low = self.low2(self.middle(self.low1(F.max_pool2d(x, 2)), target))
        return self.upper(x) + F.interpolate(low, scale_factor=2)


class DPR(Editor):
    """DPR's network: a photo and a light to the photo in that light.

    ``widths`` are the channels of the first layer, and inside each level of the hourglass from the
    outermost; ``lit`` are those that carry the light, ``hidden`` those between it and these.
    """

    columns, asked = 9, "spherical-harmonics coefficients"  # of the light, see `light`
    # Layers that estimate the photo's light, and the hourglass' inner levels a second time.
    dropped = r"^light\.|^HG[012]\.|\.predict_"

    def __init__(
        self, widths: Sequence[int] = (16, 16, 32, 64, 155), lit: int = 27, hidden: int = 128
    ) -> None:
        super().__init__()
        w, middle = widths[0], _Lighting(lit, hidden)
        self.divisor = 2 ** (len(widths) - 1)
        for inner, outer in pairwise(reversed(widths)):
            middle = _Hourglass(outer, inner, middle)
        self.pre_conv, self.pre_bn = ImageConv2d(1, w, 5, 1, 2), nn.BatchNorm2d(w)
        self.HG3 = middle
        for i, size in ((1, 3), (2, 1), (3, 1)):
            self.add_module(f"conv_{i}", nn.Conv2d(w, w, size, padding=size // 2))
            self.add_module(f"bn_{i}", nn.BatchNorm2d(w))
        self.output = nn.Conv2d(w, 1, 1)

    def relit(self, luminance: Tensor, target: Tensor) -> Tensor:
        """Return luminance (N, 1, H, W) in [0, 1] in the lights ``target`` (N, 9)."""
        x = self.HG3(F.relu(self.pre_bn(self.pre_conv(luminance))), target)
        x = F.relu(self.bn_1(self.conv_1(x)))
        x = F.relu(self.bn_2(self.conv_2(x)))
        return self.output(F.relu(self.bn_3(self.conv_3(x)))).sigmoid()

    def _edit(self, images: Tensor, target: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            luminance, colours = rgb_to_lab((images + 1) / 2).split((1, 2), 1)
        relit = self.relit(luminance / 100, target)
        with torch.autocast(images.device.type, enabled=False):
            return 2 * lab_to_rgb(torch.cat([100 * relit.to(colours), colours], 1)) - 1

    def _target(self, labels: Tensor, edit: str) -> Tensor:
        return torch.tensor([light(*DIRECTIONS[edit])] * len(labels), device=labels.device)

    edits = EditSet(tuple(DIRECTIONS), _target)

    @classmethod
    def prepare(cls, state: Mapping) -> dict:
        """Return the parameters that make the picture.

        The file also holds unused shortcuts, of blocks that keep the number of channels.
        """
        named = super().prepare(state)
        shortcuts = [key for key in named if key.endswith(".shortcuts.weight")]
        idle = [key for key in shortcuts if len(set(named[key].shape[:2])) == 1]
        return {key: value for key, value in named.items() if key not in idle}

    @staticmethod
    def _sizes(shapes: Mapping[str, Size]) -> tuple:
        widths, level = [shapes["pre_conv.weight"][0]], "HG3."
        while f"{level}low1.conv1.weight" in shapes:
            widths.append(shapes[f"{level}low1.conv1.weight"][0])
            level += "middle."
        return widths, *shapes[f"{level}post_FC2.weight"][:2]
