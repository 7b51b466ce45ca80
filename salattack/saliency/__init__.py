"""Saliency f_sa(·): where the salient face is, as a soft map (Eq. 1), and the known models."""

from pathlib import Path

import numpy as np
import torch

from ..faces.reading import read_mask
from ..interfaces import Saliency
from ..runtime.weights import Entry, Registry, read_state_dict
from .model import DrawnMask, SaliencyModel
from .pfan import PFAN, PFANLight

__all__ = ["SALIENCY_MODELS", "DrawnMask", "Saliency", "SaliencyModel", "load_saliency"]


def _mask_state(path: Path) -> dict:
    """Read a mask as the state that `DrawnMask` holds."""
    grey = np.asarray(read_mask(path), dtype=np.float32) / 255
    return {"mask": torch.from_numpy(grey)[None, None]}


def _port(path: Path) -> dict:
    """Read the port's checkpoint, whose scores are NumPy scalars: plain numbers, no code."""
    scalar = np.float64(0).__reduce__()[0]
    number = [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, type(np.dtype("f8"))]
    with torch.serialization.safe_globals(number):
        state = read_state_dict(path)
    return state.get("model", state)


SALIENCY_MODELS = Registry(
    "saliency model",
    {
        "pfan-light": Entry(
            build=lambda _: PFANLight().to(memory_format=torch.channels_last),
            file="pfan-light.safetensors",
            sha256="6ba9778f68424f962b7b1c946ec5b934f3daa20816b5612985704eaa8e3aa73d",
            licence="research use: trained on DUTS-TR and CelebA crops (non-commercial)",
            source="this package",
            shipped=True,
            image_size=PFANLight.size,
        ),
        "pfan-duts": Entry.of_asset(
            "pfan-duts",
            build=lambda _: PFAN().to(memory_format=torch.channels_last),
            read=_port,
            image_size=PFAN.size,
        ),
        "mask": Entry(
            build=lambda state: DrawnMask(state["mask"].shape[-2:]),
            read=_mask_state,
            file="a mask (any grey picture)",
            licence="yours",
            source="yours",
        ),
    },
)


def load_saliency(
    name: str = "pfan-light", weights: str | Path | None = None, device: str = "auto"
) -> SaliencyModel | DrawnMask:
    """Return a frozen saliency model (see `Saliency`) of the registry `SALIENCY_MODELS`.

    Args:
        name: ``pfan-light`` (shipped), ``pfan-duts`` (the widely used port, at full width), or
            ``mask``: the grey picture ``weights``, white where every face may change.
        weights: a file to use; without it ``pfan-duts`` is taken from the cache.
        device: "auto" takes CUDA where there is one.

    Raises:
        SalattackError: an unknown name or device, a missing, damaged or misfitting file.
    """
    return SALIENCY_MODELS.load(name, weights, device).network
