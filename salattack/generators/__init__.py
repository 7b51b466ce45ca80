"""Face-editing generators g(·), and the registry of the known ones: which file fills which network.

What an attack sees of a generator is `Generator`; what one can be asked for is its `EditSet`.
"""

from pathlib import Path

from torch import Tensor, nn

from ..edits import ATTRIBUTES, EditSet, edit_labels
from ..interfaces import Generator
from ..runtime.weights import Entry, Registry
from .aging import AgingGAN
from .animegan import AnimeGAN
from .attgan import AttGAN
from .cartoongan import CartoonGAN
from .cyclegan import CycleGAN
from .dpr import DPR
from .editor import Editor
from .ensemble import Ensemble
from .ganimation import GANimation
from .onnx_model import OnnxEntry
from .stargan import StarGAN
from .stargan_v2 import StarGANv2

__all__ = ["ATTRIBUTES", "GENERATORS", "EditSet", "Ensemble", "Entry", "Generator", "edit_labels"]
__all__ += ["DPR", "AgingGAN", "AnimeGAN", "AttGAN", "CartoonGAN", "CycleGAN", "GANimation"]
__all__ += ["StarGAN", "StarGANv2", "edits_of", "load_generator"]


def _ignored(_: object, labels: Tensor, __: str) -> Tensor:
    return labels


def _entry(name: str, network: type[Editor], image_size: int, edit: str = "") -> Entry:
    """Return a row of `_TABLE`; ``edit`` is the one that a network makes that has no `EditSet`."""
    facts = {"build": network.like, "prepare": network.prepare, "image_size": image_size}
    facts["edits"] = network.edits or EditSet((edit,), _ignored)
    if name not in SHIPPED_CHECKSUMS:
        return Entry.of_asset(name, **facts)
    facts |= {"file": f"{name}.safetensors", "sha256": SHIPPED_CHECKSUMS[name]}
    licence = "research use: trained on CelebA crops (non-commercial)"
    return Entry(licence=licence, source="this package", shipped=True, **facts)


SHIPPED_CHECKSUMS = {
    "stargan-celeba128-w32": "e420d9f3b8ce126ec300c0684b847bda44622b075593b00a64c5b9b988bf9e26",
    "cyclegan-blond128-w32": "2c25f32baebf394a73cc2e97df9667eac0e16e7d40141ac3d38d6b5f81a5ce5a",
}
_TABLE = (
    ("stargan-celeba128-w32", StarGAN, 128),
    ("cyclegan-blond128-w32", CycleGAN, 128, "Blond_Hair"),
    ("stargan-celeba-128", StarGAN, 128),
    ("stargan-celeba-256", StarGAN, 256),
    ("stargan-v2-celeba-hq-256", StarGANv2, 256),
    ("attgan-celeba-128", AttGAN, 128),
    ("ganimation-celeba-128", GANimation, 128),
    ("cyclegan-vangogh-256", CycleGAN, 256, "Van_Gogh"),
    ("aging-cacd-128", AgingGAN, 128),
    ("cartoongan-shinkai", CartoonGAN, 128, "Shinkai"),
    ("cartoongan-hosoda", CartoonGAN, 128, "Hosoda"),
    ("animeganv3-cute", AnimeGAN, 256, "Cute"),
    ("dpr-512", DPR, 512),
)
_OWN = {row[0]: _entry(*row) for row in _TABLE}
_OWN["onnx"] = OnnxEntry(edits=EditSet(("Edit",), _ignored))
GENERATORS = Registry("generator", _OWN, group="salattack.generators")


def edits_of(name: str) -> EditSet:
    """Return what a generator can be asked for; an unknown name is a SalattackError."""
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
    return GENERATORS.load(name, weights, device, **options).network
