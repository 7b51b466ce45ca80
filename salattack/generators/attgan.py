"""AttGAN's generator (He et al., TIP 2019), at any width.

Names and sizes are not the authors' (they published TensorFlow) but those of its widely used
PyTorch port, elvisyjlin/AttGAN-PyTorch: five layers, one shortcut, attributes put in once or twice.
"""

from collections import OrderedDict
from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from .. import edits
from ..edits import EditSet
from ..runtime.weights import shape_of, unwrapped
from .layers import ImageConv2d, require_sides, require_target

ATTRIBUTES = (  # of the published weights, in the order of a target
    *("Bald", "Bangs", "Black_Hair", "Blond_Hair", "Brown_Hair", "Bushy_Eyebrows", "Eyeglasses"),
    *("Male", "Mouth_Slightly_Open", "Mustache", "No_Beard", "Pale_Skin", "Young"),
)
LAYERS = 5


def _layer(conv: nn.Module, *rest: nn.Module) -> nn.Module:
    return nn.Sequential(OrderedDict(layers=nn.Sequential(conv, *rest)))


def _joined(x: Tensor, attributes: Tensor) -> Tensor:
    return torch.cat([x, attributes[:, :, None, None].expand(-1, -1, *x.shape[-2:])], dim=1)


class AttGAN(nn.Module):
    """AttGAN's encoder and decoder.

    Batches are normalised by the running statistics of the file: in eval mode, as
    `load_generator` returns it, an image's edit does not depend on its batch.

    Args:
        width: channels of the first layer; 64 as published (43.4 M parameters).
        n_attrs: length of the attribute vector.
        inject: whether the attributes are put in after the decoder's first layer too.
    """

    def __init__(self, width: int = 64, n_attrs: int = 13, inject: bool = True) -> None:
        super().__init__()
        self.n_attrs, self.inject = n_attrs, inject
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

    def forward(self, images: Tensor, target: Tensor) -> Tensor:
        """Edit (N, 3, H, W) images in [-1, 1], H and W divisible by 32; same shape and range.

        ``target`` is (N, n_attrs), `ATTRIBUTES` for the published weights: 0.5 for present and
        -0.5 for absent; the port's tests give the edited one ±1.

        Raises:
            SalattackError: sides that 32 does not divide, a target of another shape.
        """
        require_sides("AttGAN", images, 2**LAYERS)
        require_target("AttGAN", images, target, self.n_attrs, "attributes of ±0.5")
        seen, attributes = [images], target.to(images)
        for layer in self.enc_layers:
            seen.append(layer(seen[-1]))
        x = self.dec_layers[0](_joined(seen[-1], attributes))
        x = torch.cat([x, seen[-2]], dim=1)
        x = _joined(x, attributes) if self.inject else x
        for layer in self.dec_layers[1:]:
            x = layer(x)
        return x


def prepare(state: Mapping) -> Mapping:
    """Return the parameters and statistics; files of PyTorch 0.4.0 lack the (unused) counters."""
    state = unwrapped(state)
    means = [key for key in state if key.endswith("running_mean")]
    counters = {key.replace("running_mean", "num_batches_tracked") for key in means}
    return {counter: torch.tensor(0) for counter in counters} | state


def like(state: Mapping) -> AttGAN:
    """Return the network of a state dict's width, number of attributes and injections."""
    keys = ("enc_layers.0", "enc_layers.3", "enc_layers.4", "dec_layers.0", "dec_layers.1")
    shapes = [shape_of(state, f"{key}.layers.0.weight", 4) for key in keys]
    if None in shapes:
        return AttGAN()
    first, fourth, last, decoder, second = shapes
    n_attrs = max(decoder[0] - last[0], 0)
    return AttGAN(first[0], n_attrs, inject=second[0] > decoder[1] + fourth[0])


def _target(_: object, labels: Tensor, edit: str) -> Tensor:
    """The port's test targets; what the labels do not tell is absent, and so is a beard."""
    target = labels.new_full((len(labels), len(ATTRIBUTES)), -0.5)
    target[:, ATTRIBUTES.index("No_Beard")] = 0.5
    known = [ATTRIBUTES.index(name) for name in edits.ATTRIBUTES]
    target[:, known] = edits.edit_labels(labels, edit) - 0.5
    target[:, ATTRIBUTES.index(edit)] *= 2
    return target


EDITS = EditSet(edits.ATTRIBUTES, _target)
