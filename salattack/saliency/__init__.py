"""Saliency f_sa(·): where the salient face is, as a soft map (Eq. 1), and the known models."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from ..errors import one_of
from ..faces.reading import read_mask
from ..interfaces import Saliency
from ..runtime.assets import ASSETS
from ..runtime.weights import Model
from .model import DrawnMask, SaliencyModel
from .pfan import PFAN, PFANLight

__all__ = [
    "SALIENCY_MODELS",
    "DrawnMask",
    "Saliency",
    "SaliencyModel",
    "load_saliency",
    "read_mask",
]


def _drawn(path: Path) -> dict:
    """Read a mask as the state that `DrawnMask` holds."""
    grey = np.asarray(read_mask(path), dtype=np.float32) / 255
    return {"mask": torch.from_numpy(grey)[None, None]}


def _under_model(state: Mapping) -> Mapping:
    """Return the parameters of the port's checkpoint, which holds scores beside them."""
    return state.get("model", state)


SALIENCY_MODELS: dict[str, Model] = {
    "pfan-light": Model(
        build=lambda _: PFANLight(),
        file="pfan-light.safetensors",
        sha256="6ba9778f68424f962b7b1c946ec5b934f3daa20816b5612985704eaa8e3aa73d",
        licence="research use: trained on DUTS-TR and CelebA crops (non-commercial)",
        source="this package",
        shipped=True,
        image_size=224,  # trained at 192; finer maps, better on ECSSD too
    ),
    "pfan-duts": Model(
        build=lambda _: PFAN(),
        prepare=_under_model,
        file=ASSETS["pfan-duts"].path.name,
        sha256=None,
        licence=ASSETS["pfan-duts"].licence,
        source=ASSETS["pfan-duts"].address,
        shipped=False,
        asset="pfan-duts",
        image_size=256,
    ),
    "mask": Model(
        build=lambda state: DrawnMask(state["mask"].shape[-2:]),
        read=_drawn,
        file="a mask (any grey picture)",
        sha256=None,
        licence="yours",
        source="yours",
        shipped=False,
        image_size=128,
    ),
}


def load_saliency(
    name: str = "pfan-light", weights: str | Path | None = None, device: str = "auto"
) -> SaliencyModel | DrawnMask:
    """Return a frozen saliency model of the registry `SALIENCY_MODELS`.

    Args:
        name: ``pfan-light`` (shipped), ``pfan-duts`` (the widely used port, at full width), or
            ``mask``: the grey picture ``weights``, white where every face may change.
        weights: a file (.safetensors or torch checkpoint) to use. Without it ``pfan-duts`` is
            taken from the cache (`salattack assets fetch`).
        device: "auto" takes CUDA where there is one.

    Returns:
        A module from images (N, 3, H, W) in [-1, 1] to soft maps (N, 1, H, W) in [0, 1].

    Raises:
        SalattackError: an unknown name or device, a missing, damaged or misfitting file.
    """
    if name not in SALIENCY_MODELS:
        raise one_of("saliency model", name, SALIENCY_MODELS)
    entry = SALIENCY_MODELS[name]
    # Scores beside the published parameters are NumPy scalars: plain numbers, no code.
    scalar = np.float64(0).__reduce__()[0]
    number = [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, type(np.dtype("f8"))]
    with torch.serialization.safe_globals(number):
        net = entry.load(weights, device)
    if isinstance(net, DrawnMask):
        return net
    return SaliencyModel(net, entry.image_size)
