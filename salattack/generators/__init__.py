"""Face-editing generators g(·): what an attack sees of them, and the registry of known ones."""

from inspect import signature
from pathlib import Path

from torch import nn

from ..edits import ATTRIBUTES, EditSet, edit_labels
from ..errors import one_of
from ..interfaces import Generator
from ..runtime.weights import Entry, Loaded
from .aging import AgingGAN
from .animegan import AnimeGAN
from .attgan import AttGAN
from .cartoongan import CartoonGAN
from .cyclegan import CycleGAN
from .dpr import DPR
from .ensemble import Ensemble
from .ganimation import GANimation
from .registry import GENERATORS
from .stargan import StarGAN
from .stargan_v2 import StarGANv2

__all__ = [
    "ATTRIBUTES",
    "DPR",
    "GENERATORS",
    "AgingGAN",
    "AnimeGAN",
    "AttGAN",
    "CartoonGAN",
    "CycleGAN",
    "EditSet",
    "Ensemble",
    "Entry",
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
    return GENERATORS[name].edits


def load_generator(
    name: str = "stargan-celeba128-w32",
    weights: str | Path | None = None,
    device: str = "auto",
    **options: object,
) -> nn.Module:
    """Return a frozen generator (see `Generator`) of the registry `GENERATORS`.

    Args:
        name: a key of `GENERATORS`.
        weights: a file of that architecture (.safetensors or torch checkpoint), of any width.
            Without it a published model is taken from the cache (`salattack assets fetch`).
        device: "auto" takes CUDA where there is one.
        options: what the entry's ``load`` takes besides; for "onnx" layout="nchw" or "nhwc", and
            value_range=(lowest, highest) of its pixels.

    Raises:
        SalattackError: an unknown name, device or option, a missing, damaged or misfitting file.
    """
    return loaded(name, weights, device, **options).network


def loaded(name: str, weights: str | Path | None, device: str, **options: object) -> Loaded:
    """Return what `load_generator` does, with what is known about it."""
    entry = GENERATORS[name]
    known = list(signature(entry.load).parameters)[2:]
    for option in set(options) - set(known):
        raise one_of(f"option of {name}", option, known or ["none"])
    return entry.load(weights, device, **options)
