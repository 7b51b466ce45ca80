"""PFAN (Zhao and Wu, CVPR 2019): one decoder, on VGG-16 as published or on EfficientNet-Lite0."""

from collections.abc import Container, Iterable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers
from torchvision.ops.misc import Conv2dNormActivation

_upsample = partial(F.interpolate, mode="bilinear", align_corners=True)


def _after(layers: Iterable[nn.Module], x: Tensor, chosen: Container[int]) -> list[Tensor]:
    """Run layers one after another and return what the chosen ones give."""
    seen = []
    for index, layer in enumerate(layers):
        x = layer(x)
        if index in chosen:
            seen.append(x)
    return seen


class CPFE(nn.Module):
    """Context-aware pyramid feature extraction: one feature map seen at four dilations."""

    def __init__(self, channels: int, width: int = 32) -> None:
        super().__init__()
        self.conv_1_1 = nn.Conv2d(channels, width, 1, bias=False)
        for d in (3, 5, 7):
            conv = nn.Conv2d(channels, width, 3, padding=d, dilation=d, bias=False)
            self.add_module(f"conv_dil_{d}", conv)
        self.bn = nn.BatchNorm2d(4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to (N, 4 width, H, W)."""
        convs = (self.conv_1_1, self.conv_dil_3, self.conv_dil_5, self.conv_dil_7)
        return F.relu(self.bn(torch.cat([conv(x) for conv in convs], dim=1)))


class ChannelAttention(nn.Module):
    """A weight in [0, 1] for each channel, from the channels' means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(channels, channels // 4)
        self.linear_2 = nn.Linear(channels // 4, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape, channels weighted."""
        weight = self.linear_2(F.relu(self.linear_1(x.mean(dim=(2, 3))))).sigmoid()
        return x * weight[:, :, None, None]


class SpatialAttention(nn.Module):
    """A weight in [0, 1] for each place: two 9×9 fields, factored in either order."""

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
        """Map (N, C, H, W) to weights (N, 1, H, W)."""
        one = F.relu(self.grp1_bn1(self.grp1_conv1k(x)))
        one = F.relu(self.grp1_bn2(self.grp1_convk1(one)))
        two = F.relu(self.grp2_bn1(self.grp2_convk1(x)))
        two = F.relu(self.grp2_bn2(self.grp2_conv1k(two)))
        return (one + two).sigmoid()


class PyramidAttention(nn.Module):
    """PFAN without its backbone; a subclass adds one and says what its five levels are.

    Parameters are named as in the widely used PyTorch port, so that its checkpoint loads.

    Args:
        channels: of the five levels, each at half the resolution of the one before.
        width: channels of the low-level and of the high-level branch.
    """

    mean: tuple[float, float, float]  # mu of Eq. 1, for R, G and B in [0, 1]
    std: tuple[float, float, float]  # sigma of Eq. 1
    pads: bool  # whether it was trained on images zero-padded to a square; else on stretched ones

    def __init__(self, channels: Sequence[int], width: int = 64) -> None:
        super().__init__()
        low_1, low_2, *high = channels
        self.cpfe_conv3_3, self.cpfe_conv4_3, self.cpfe_conv5_3 = map(CPFE, high)
        self.cha_att = ChannelAttention(3 * 128)
        self.hl_conv1 = nn.Conv2d(3 * 128, width, 3, padding=1)
        self.hl_bn1 = nn.BatchNorm2d(width)
        self.ll_conv_1 = nn.Conv2d(low_1, width, 3, padding=1)
        self.ll_bn_1 = nn.BatchNorm2d(width)
        self.ll_conv_2 = nn.Conv2d(low_2, width, 3, padding=1)
        self.ll_bn_2 = nn.BatchNorm2d(width)
        self.ll_conv_3 = nn.Conv2d(2 * width, width, 3, padding=1)
        self.ll_bn_3 = nn.BatchNorm2d(width)
        self.spa_att = SpatialAttention(width)
        self.ff_conv_1 = nn.Conv2d(2 * width, 1, 3, padding=1)

    def levels(self, x: Tensor) -> list[Tensor]:
        """Return the backbone's five feature maps for normalised images (N, 3, H, W)."""
        raise NotImplementedError

    def decode(self, levels: Sequence[Tensor]) -> Tensor:
        """Return the map before its sigmoid, (N, 1, h, w) at the first level's resolution."""
        one, two, three, four, five = levels
        four = _upsample(self.cpfe_conv4_3(four), scale_factor=2)
        five = _upsample(self.cpfe_conv5_3(five), scale_factor=4)
        high = self.cha_att(torch.cat([self.cpfe_conv3_3(three), four, five], dim=1))
        high = _upsample(F.relu(self.hl_bn1(self.hl_conv1(high))), scale_factor=4)
        one = F.relu(self.ll_bn_1(self.ll_conv_1(one)))
        two = _upsample(F.relu(self.ll_bn_2(self.ll_conv_2(two))), scale_factor=2)
        low = F.relu(self.ll_bn_3(self.ll_conv_3(torch.cat([one, two], dim=1))))
        return self.ff_conv_1(torch.cat([low * self.spa_att(high), high], dim=1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, H, W), normalised by Eq. 1 and divisible by 32, to (N, 1, H, W) in [0, 1]."""
        logits = self.decode(self.levels(x))
        if logits.shape[-2:] != x.shape[-2:]:
            logits = F.interpolate(logits, size=x.shape[-2:], mode="bilinear")
        return logits.sigmoid()


class PFAN(PyramidAttention):
    """PFAN as published: VGG-16, levels conv1_2, conv2_2, conv3_3, conv4_3 and conv5_3."""

    mean, std, pads = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), True

    def __init__(self) -> None:
        super().__init__((64, 128, 256, 512, 512))
        self.vgg16 = make_layers(cfgs["D"])[:30]

    def levels(self, x: Tensor) -> list[Tensor]:
        """Return the five feature maps after their ReLU, at strides 1, 2, 4, 8 and 16."""
        return _after(self.vgg16, x, (3, 8, 15, 22, 29))


_conv = partial(
    Conv2dNormActivation, norm_layer=partial(nn.BatchNorm2d, eps=1e-3), activation_layer=nn.ReLU6
)


class InvertedResidual(nn.Sequential):
    """MBConv without squeeze-and-excitation: expand, depthwise, project."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expand: int) -> None:
        hidden = inputs * expand
        layers = [_conv(inputs, hidden, 1)] if expand > 1 else []
        layers.append(_conv(hidden, hidden, kernel, stride, groups=hidden))
        layers.append(_conv(hidden, outputs, 1, activation_layer=None))
        super().__init__(*layers)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        return x + super().forward(x) if self.skip else super().forward(x)


class EfficientNetLite0(nn.ModuleList):
    """EfficientNet-Lite0's stem and 16 blocks in order, without its classifier."""

    LEVELS = ((1, 16), (3, 24), (5, 40), (11, 112), (16, 320))  # ends: index, channels
    # (blocks, channels, kernel, stride, expansion), EfficientNet's Table 1
    STAGES = (
        *((1, 16, 3, 1, 1), (2, 24, 3, 2, 6), (2, 40, 5, 2, 6), (3, 80, 3, 2, 6)),
        *((3, 112, 5, 1, 6), (4, 192, 5, 2, 6), (1, 320, 3, 1, 6)),
    )

    def __init__(self) -> None:
        inputs = 32
        blocks = [_conv(3, inputs, 3, 2)]
        for count, outputs, kernel, stride, expand in self.STAGES:
            for index in range(count):
                step = stride if index == 0 else 1
                blocks.append(InvertedResidual(inputs, outputs, kernel, step, expand))
                inputs = outputs
        super().__init__(blocks)


class PFANLight(PyramidAttention):
    """PFAN's decoder at half width on EfficientNet-Lite0; each level one octave coarser."""

    mean, std, pads = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), False  # mu, sigma as EfficientNet-Lite's

    def __init__(self) -> None:
        super().__init__([channels for _, channels in EfficientNetLite0.LEVELS], width=32)
        self.backbone = EfficientNetLite0()

    def levels(self, x: Tensor) -> list[Tensor]:
        """Return the five feature maps at strides 2, 4, 8, 16 and 32."""
        return _after(self.backbone, x, dict(EfficientNetLite0.LEVELS))
