"""PFAN (Zhao and Wu, CVPR 2019): one decoder, on VGG-16 as published or on EfficientNet-Lite0."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers
from torchvision.ops.misc import Conv2dNormActivation

from .model import SaliencyModel

_upsample = partial(F.interpolate, mode="bilinear", align_corners=True)


class _CPFE(nn.Module):
    """Context-aware pyramid feature extraction: (N, C, H, W) seen at four dilations, 128 maps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_1_1 = nn.Conv2d(channels, 32, 1, bias=False)
        for d in (3, 5, 7):
            conv = nn.Conv2d(channels, 32, 3, padding=d, dilation=d, bias=False)
            self.add_module(f"conv_dil_{d}", conv)
        self.bn = nn.BatchNorm2d(4 * 32)

    def forward(self, x: Tensor) -> Tensor:
        *convs, norm = self.children()
        return F.relu(norm(torch.cat([conv(x) for conv in convs], dim=1)))


class _ChannelAttention(nn.Module):
    """A weight in [0, 1] for each of (N, C, H, W) channels, from the channels' means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(channels, channels // 4)
        self.linear_2 = nn.Linear(channels // 4, channels)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.linear_2(F.relu(self.linear_1(x.mean(dim=(2, 3))))).sigmoid()
        return x * weight[:, :, None, None]


class _SpatialAttention(nn.Module):
    """A weight (N, 1, H, W) in [0, 1] for each place: two 9×9 fields, factored in either order."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half, wide, tall = channels // 2, (1, 9), (9, 1)
        self.grp1_conv1k = nn.Conv2d(channels, half, wide, padding=(0, 4))
        self.grp1_bn1 = nn.BatchNorm2d(half)
        self.grp1_convk1 = nn.Conv2d(half, 1, tall, padding=(4, 0))
        self.grp1_bn2 = nn.BatchNorm2d(1)
        self.grp2_convk1 = nn.Conv2d(channels, half, tall, padding=(4, 0))
        self.grp2_bn1 = nn.BatchNorm2d(half)
        self.grp2_conv1k = nn.Conv2d(half, 1, wide, padding=(0, 4))
        self.grp2_bn2 = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        one = F.relu(self.grp1_bn1(self.grp1_conv1k(x)))
        one = F.relu(self.grp1_bn2(self.grp1_convk1(one)))
        two = F.relu(self.grp2_bn1(self.grp2_convk1(x)))
        two = F.relu(self.grp2_bn2(self.grp2_conv1k(two)))
        return (one + two).sigmoid()


class _PyramidAttention(SaliencyModel):
    """PFAN without its backbone, which a subclass adds under the name ``backbone_name``.

    Parameters are named as in the widely used PyTorch port, so that its checkpoint loads.
    ``width`` is that of the low-level and of the high-level branch.
    """

    backbone_name: str
    ends: dict[int, int]  # of the five levels: index of the backbone's last layer, its channels

    def __init__(self, width: int) -> None:
        super().__init__()
        low_1, low_2, *high = self.ends.values()
        self.cpfe_conv3_3, self.cpfe_conv4_3, self.cpfe_conv5_3 = map(_CPFE, high)
        self.cha_att = _ChannelAttention(3 * 128)
        self.hl_conv1 = nn.Conv2d(3 * 128, width, 3, padding=1)
        self.hl_bn1 = nn.BatchNorm2d(width)
        for i, channels_in in enumerate((low_1, low_2, 2 * width), 1):
            self.add_module(f"ll_conv_{i}", nn.Conv2d(channels_in, width, 3, padding=1))
            self.add_module(f"ll_bn_{i}", nn.BatchNorm2d(width))
        self.spa_att = _SpatialAttention(width)
        self.ff_conv_1 = nn.Conv2d(2 * width, 1, 3, padding=1)

    def levels(self, x: Tensor) -> list[Tensor]:
        seen = []
        for index, layer in enumerate(self.get_submodule(self.backbone_name)):
            x = layer(x)
            if index in self.ends:
                seen.append(x)
        return seen

    def decode(self, levels: list[Tensor]) -> Tensor:
        one, two, three, four, five = levels
        four = _upsample(self.cpfe_conv4_3(four), scale_factor=2)
        five = _upsample(self.cpfe_conv5_3(five), scale_factor=4)
        high = self.cha_att(torch.cat([self.cpfe_conv3_3(three), four, five], dim=1))
        high = _upsample(F.relu(self.hl_bn1(self.hl_conv1(high))), scale_factor=4)
        one = F.relu(self.ll_bn_1(self.ll_conv_1(one)))
        two = _upsample(F.relu(self.ll_bn_2(self.ll_conv_2(two))), scale_factor=2)
        low = F.relu(self.ll_bn_3(self.ll_conv_3(torch.cat([one, two], dim=1))))
        return self.ff_conv_1(torch.cat([low * self.spa_att(high), high], dim=1))


class PFAN(_PyramidAttention):
    """PFAN as published: VGG-16, levels conv1_2, conv2_2, conv3_3, conv4_3, conv5_3 after ReLU."""

    mean, std, size, pads = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 256, True
    backbone_name, ends = "vgg16", {3: 64, 8: 128, 15: 256, 22: 512, 29: 512}

    def __init__(self) -> None:
        super().__init__(width=64)
        self.vgg16 = make_layers(cfgs["D"])[:30]


_conv = partial(
    Conv2dNormActivation, norm_layer=partial(nn.BatchNorm2d, eps=1e-3), activation_layer=nn.ReLU6
)


class _InvertedResidual(nn.Sequential):
    """MBConv without squeeze-and-excitation: expand, depthwise, project."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expand: int) -> None:
        hidden = inputs * expand
        layers = [_conv(inputs, hidden, 1)] if expand > 1 else []
        layers.append(_conv(hidden, hidden, kernel, stride, groups=hidden))
        layers.append(_conv(hidden, outputs, 1, activation_layer=None))
        super().__init__(*layers)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x) if self.skip else super().forward(x)


class EfficientNetLite0(nn.ModuleList):
    """EfficientNet-Lite0's stem and 16 blocks in order, without its classifier."""

    # (blocks, channels, kernel, stride, expansion), EfficientNet's Table 1
    STAGES = (
        *((1, 16, 3, 1, 1), (2, 24, 3, 2, 6), (2, 40, 5, 2, 6), (3, 80, 3, 2, 6)),
        *((3, 112, 5, 1, 6), (4, 192, 5, 2, 6), (1, 320, 3, 1, 6)),
    )

    def __init__(self) -> None:
        inputs = 32
        blocks = [_conv(3, inputs, 3, 2)]
        for count, outputs, kernel, stride, expand in self.STAGES:
            for step in [stride] + [1] * (count - 1):
                blocks.append(_InvertedResidual(inputs, outputs, kernel, step, expand))
                inputs = outputs
        super().__init__(blocks)


class PFANLight(_PyramidAttention):
    """PFAN's decoder at half width on EfficientNet-Lite0; each level one octave coarser."""

    # mu and sigma as EfficientNet-Lite's; trained at 192, finer maps at 224, better on ECSSD too
    mean, std, size, pads = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 224, False
    backbone_name, ends = "backbone", {1: 16, 3: 24, 5: 40, 11: 112, 16: 320}

    def __init__(self) -> None:
        super().__init__(width=32)
        self.backbone = EfficientNetLite0()
