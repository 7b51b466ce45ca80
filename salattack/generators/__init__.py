"""Face-editing generators g(·): what an attack sees of them, and the registry of known ones."""

from pathlib import Path

from torch import nn

from ..edits import ATTRIBUTES, EditSet, edit_labels
from ..errors import one_of
from ..interfaces import Generator
from . import stargan
from .attgan import AttGAN
from .cyclegan import CycleGAN
from .ensemble import Ensemble
from .ganimation import GANimation
from .registry import GENERATORS
from .stargan import StarGAN
from .stargan_v2 import StarGANv2

__all__ = [
    "ATTRIBUTES",
    "GENERATORS",
    "AttGAN",
    "CycleGAN",
    "EditSet",
    "Ensemble",
    "GANimation",
    "Generator",
    "StarGAN",
    "StarGANv2",
    "edit_labels",
    "edits_of",
    "load_generator",
]


def edits_of(name: str) -> EditSet:
    """Return what the generator ``name`` of the registry can be asked for.

    Raises:
        SalattackError: an unknown name.
    """
    if name not in GENERATORS:
        raise one_of("generator", name, GENERATORS)
    return GENERATORS[name].edits or stargan.EDITS


def load_generator(
    name: str = "stargan-celeba128-w32", weights: str | Path | None = None, device: str = "auto"
) -> nn.Module:
    """Return a frozen generator (see `Generator`) of the registry `GENERATORS`.

    Args:
        name: a key of `GENERATORS`.
        weights: a file of that architecture (.safetensors or torch checkpoint), of any width.
            Without it a published model is taken from the cache (`salattack assets fetch`).
        device: "auto" takes CUDA where there is one.

    Raises:
        SalattackError: an unknown name or device, a missing, damaged or misfitting file.
    """
    if name not in GENERATORS:
        raise one_of("generator", name, GENERATORS)
    return GENERATORS[name].load(weights, device)
