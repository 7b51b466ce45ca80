"""GANimation's generator (Pumarola et al., ECCV 2018) as in its authors' code, at any width.

They published no weights. Those of a reimplementation (donydchen/ganimation_replicate) are of the
same network under other names, and `prepare` gives them these.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..edits import EditSet
from .stargan import StarGAN

# OpenFace's 17 intensities, in the order of its columns and so of a target.
ACTION_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)
EXPRESSIONS = {  # prototypes of Ekman and Friesen's EMFACS, in action units
    "Happy": (6, 12),
    "Sad": (1, 4, 15),
    "Surprised": (1, 2, 5, 26),
    "Angry": (4, 5, 7, 23),
}
ACTIVATION = 0.6  # 3 of OpenFace's 5


class GANimation(StarGAN):
    """StarGAN's network up to its last layer, with one head for colour and one for attention.

    The result is A · photo + (1 − A) · colour, as in the authors' code. A target holds activations
    of `ACTION_UNITS` in [0, 1], OpenFace's 0 to 5 by 5. As published it has 8.47 M parameters.
    """

    asked = "action units in [0, 1]"
    renamed = (  # of the reimplementation
        *((r"^model\.", "main."), (r"\.conv_block\.", ".main.")),
        *((r"^color_top\.", "img_reg."), (r"^au_top\.", "attetion_reg.")),
    )

    def __init__(self, conv_dim: int = 64, c_dim: int = 17, repeat_num: int = 6) -> None:
        super().__init__(conv_dim, c_dim, repeat_num)
        self.main = self.main[:-2]
        self.img_reg = nn.Sequential(nn.Conv2d(conv_dim, 3, 7, 1, 3, bias=False), nn.Tanh())
        # The authors' spelling, which is in every file.
        self.attetion_reg = nn.Sequential(nn.Conv2d(conv_dim, 1, 7, 1, 3, bias=False), nn.Sigmoid())

    def _edit(self, images: Tensor, target: Tensor) -> Tensor:
        features = super()._edit(images, target)
        attention = self.attetion_reg(features)
        return attention * images + (1 - attention) * self.img_reg(features)

    def _target(self, labels: Tensor, edit: str) -> Tensor:
        units = [ACTIVATION * (unit in EXPRESSIONS[edit]) for unit in ACTION_UNITS]
        return labels.new_tensor(units).expand(len(labels), -1)

    edits = EditSet(tuple(EXPRESSIONS), _target)

    @classmethod
    def prepare(cls, state: Mapping) -> dict:
        """Return the parameters under the authors' names, also those of the reimplementation.

        It has biases before its normalisations, which these cancel, and none after them.
        """
        named = super().prepare(state)
        if "main.0.bias" in named:
            for key in [key for key in named if key.endswith(".bias")]:
                place, index, _ = key.rsplit(".", 2)
                bias, norm = named.pop(key), f"{place}.{int(index) + 1}"
                named[f"{norm}.weight"] = torch.ones_like(bias)
                named[f"{norm}.bias"] = torch.zeros_like(bias)
        return named
