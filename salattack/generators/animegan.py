"""AnimeGANv3's generator (Xin Chen, 2023), the "tiny" one of the portrait styles.

The published file is an ONNX graph whose batch normalisations are folded into its convolutions.
Its initialisers are numbered as the layers of `AnimeGAN.base` and `AnimeGAN.main`. It is
unconditional.
"""

from collections.abc import Mapping
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Size, Tensor, nn

from .editor import Editor, InstanceNorm2d, reflecting

INITIALISER = r"^generator/(base|main)/Conv_(\d+)/(?:Conv2D_)?(weight|bias)s?(?:_fused_bn|/read:0)$"


_leaky = partial(F.leaky_relu, negative_slope=0.2)


def _doubled(x: Tensor) -> Tensor:
    """Upsample bilinearly where pixel i of the result lies on pixel i / 2 of x."""
    height, width = (2 * side + 1 for side in x.shape[-2:])
    x = F.pad(x, (0, 1, 0, 1), mode="replicate")
    return F.interpolate(x, (height, width), mode="bilinear", align_corners=True)[..., :-1, :-1]


class AnimeGAN(Editor):
    """AnimeGANv3's tiny generator: a portrait to its drawing.

    ``width`` are the first layer's channels. As published it has 605,616 parameters.
    """

    divisor = 16
    renamed = (("/Conv/", "/Conv_0/"), (INITIALISER, r"\1.\2.\3"))
    dropped = r"^(?!(base|main)\.)"

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        w = [width, width, 2 * width, 4 * width, 8 * width]
        base, main = [reflecting(3, w[0], 7)], []
        for a, b in pairwise(w):
            base += [reflecting(a, b, stride=2), reflecting(b, b)]
        for _ in range(2):
            base += [reflecting(w[4], w[3], 1), reflecting(w[3], w[3])]
            base += [reflecting(w[3], w[4], 1, bias=False)]
        for a, b in pairwise(w[:0:-1]):
            main += [reflecting(a, b), reflecting(b, b), reflecting(b, b)]
        main += [reflecting(w[1], w[0]), reflecting(w[0], w[0], bias=False)]
        main += [reflecting(w[0], w[0], 1, bias=False), reflecting(w[0], 3, 7, bias=False)]
        self.base, self.main = nn.ModuleList(base), nn.ModuleList(main)
        self.norm = InstanceNorm2d(width)

    def _edit(self, images: Tensor) -> Tensor:
        base, main = self.base, self.main
        seen = [_leaky(base[0](images))]
        for i in range(1, 9, 2):
            seen.append(_leaky(base[i + 1](_leaky(base[i](seen[-1])))))
        x = seen.pop()
        for i in (9, 12):
            x = _leaky(x + base[i + 2](_leaky(base[i + 1](_leaky(base[i](x))))))
        for i in (0, 3, 6):
            x = _leaky(main[i](_doubled(x))) + seen.pop()
            x = _leaky(main[i + 2](_leaky(main[i + 1](x))))
        x = main[10](_leaky(main[9](_doubled(x))) + seen.pop())
        style = main[11](x)  # whose mean and deviation over the image x is given
        variance, mean = torch.var_mean(style, (2, 3), correction=0, keepdim=True)
        x = _leaky(self.norm(x) * (variance + self.norm.eps).sqrt() + mean)
        return torch.tanh(main[12](x))

    @staticmethod
    def _sizes(shapes: Mapping[str, Size]) -> tuple:
        return shapes["base.0.weight"][:1]
