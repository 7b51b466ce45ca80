"""AttGAN's generator (He et al., TIP 2019), at any width.

Names and sizes are not the authors' (they published TensorFlow) but those of its widely used
PyTorch port, elvisyjlin/AttGAN-PyTorch: five layers, one shortcut, attributes put in once or twice.
"""

from collections import OrderedDict
from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Size, Tensor, nn

from ..edits import ATTRIBUTES, EditSet, edit_labels
from .editor import Editor, ImageConv2d, joined

ATTRIBUTES_13 = (  # of the published weights, in the order of a target
    *("Bald", "Bangs", "Black_Hair", "Blond_Hair", "Brown_Hair", "Bushy_Eyebrows", "Eyeglasses"),
    *("Male", "Mouth_Slightly_Open", "Mustache", "No_Beard", "Pale_Skin", "Young"),
)
LAYERS = 5


def _layer(conv: nn.Module, *rest: nn.Module) -> nn.Module:
    return nn.Sequential(OrderedDict(layers=nn.Sequential(conv, *rest)))


class AttGAN(Editor):
    """AttGAN's encoder and decoder.

    A target holds `ATTRIBUTES_13` for the published weights: 0.5 for present and -0.5 for absent;
    the port's tests give the edited one ±1.

    ``width`` are the first layer's channels; with ``inject`` the attributes are put in after the
    decoder's first layer too. As published it has 43.4 M parameters.
    """

    divisor, asked = 2**LAYERS, "attributes of ±0.5"

    def __init__(self, width: int = 64, n_attrs: int = 13, inject: bool = True) -> None:
        super().__init__()
        self.columns, self.inject = n_attrs, inject
        w = [3, *(min(width * 2**i, 1024) for i in range(LAYERS))]
        kinds = [ImageConv2d] + [nn.Conv2d] * (LAYERS - 1)
        self.enc_layers = nn.ModuleList(
            _layer(kind(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU())
            for kind, (a, b) in zip(kinds, pairwise(w), strict=True)
        )
        # The first layer also sees the attributes, the second the shortcut and, maybe, them again.
        sees = [w[5] + n_attrs, w[5] + w[4] + n_attrs * inject, w[4], w[3]]
        self.dec_layers = nn.ModuleList(
            _layer(nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in zip(sees, w[:1:-1], strict=True)
        )
        self.dec_layers.append(_layer(nn.ConvTranspose2d(w[2], 3, 4, 2, 1), nn.Tanh()))

    def _edit(self, images: Tensor, target: Tensor) -> Tensor:
        seen = [images]
        for layer in self.enc_layers:
            seen.append(layer(seen[-1]))
        x = self.dec_layers[0](joined(seen[-1], target))
        x = torch.cat([x, seen[-2]], dim=1)
        x = joined(x, target) if self.inject else x
        for layer in self.dec_layers[1:]:
            x = layer(x)
        return x

    def _target(self, labels: Tensor, edit: str) -> Tensor:
        """The port's test targets; what the labels do not tell is absent, and so is a beard."""
        place, wanted = ATTRIBUTES_13.index, edit_labels(labels, edit)
        target = labels.new_full((len(labels), len(ATTRIBUTES_13)), -0.5)
        target[:, place("No_Beard")] = 0.5
        target[:, [place(name) for name in ATTRIBUTES]] = wanted - 0.5
        target[:, place(edit)] *= 2
        return target

    edits = EditSet(ATTRIBUTES, _target)

    @staticmethod
    def _sizes(shapes: Mapping[str, Size]) -> tuple:
        keys = ("enc_layers.0", "enc_layers.3", "enc_layers.4", "dec_layers.0", "dec_layers.1")
        first, fourth, last, decoder, second = (shapes[f"{key}.layers.0.weight"] for key in keys)
        return first[0], decoder[0] - last[0], second[0] > decoder[1] + fourth[0]
