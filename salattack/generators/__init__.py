"""Face-editing generators g(·), and the registry of the known ones: which file fills which network.

What an attack sees of a generator is `Generator`; what one can be asked for is its `EditSet`.
"""

import warnings
from collections.abc import Iterator
from importlib.metadata import entry_points
from inspect import signature
from pathlib import Path

from torch import Tensor, nn

from ..edits import ATTRIBUTES, EditSet, edit_labels
from ..errors import one_of
from ..interfaces import Generator
from ..runtime import assets
from ..runtime.weights import Entry, Loaded, Registry
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


class _Generators(Registry):
    """The package's own and those of installed packages: entry points "salattack.generators".

    Packages are loaded when the list of all names, or one that is not ours, is first asked for:
    they may import this module.
    """

    loaded = False

    def _all(self) -> dict[str, Entry]:
        if not self.loaded:
            self.loaded = True  # at once: a package may look into the registry itself
            for found in entry_points(group="salattack.generators"):
                try:
                    self.data.setdefault(found.name, found.load())
                except Exception as error:  # another package's fault must not stop this one
                    what = f"the generator {found.name!r} of an installed package"
                    warnings.warn(f"{what} cannot be used: {error}", stacklevel=3)
        return self.data

    def __contains__(self, name: object) -> bool:
        return name in self.data or name in self._all()

    def __missing__(self, name: str) -> Entry:
        return self.data[name] if name in self else super().__missing__(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


def _ignored(_: object, labels: Tensor, __: str) -> Tensor:
    return labels


def _entry(name: str, size: int, network: type[Editor], source: str, edit: str = "") -> Entry:
    """Return the entry of a shipped or published generator; ``edit`` is its one edit, if so."""
    asset = assets.ASSETS.get(name)
    return Entry(
        build=network.like,
        prepare=network.prepare,
        file=asset.path.name if asset else f"{name}.safetensors",
        sha256=(asset.checksum.removeprefix("sha256:") or None) if asset else CHECKSUMS[name],
        licence=asset.licence if asset else LICENCE,
        source=f"{source} ({asset.address})" if asset else source,
        shipped=asset is None,
        asset=name if asset else None,
        image_size=size,
        edits=network.edits or EditSet((edit,), _ignored),
    )


CHECKSUMS = {
    "stargan-celeba128-w32": "e420d9f3b8ce126ec300c0684b847bda44622b075593b00a64c5b9b988bf9e26",
    "cyclegan-blond128-w32": "2c25f32baebf394a73cc2e97df9667eac0e16e7d40141ac3d38d6b5f81a5ce5a",
}
LICENCE = "research use: trained on CelebA crops (non-commercial)"
_TABLE = (
    ("stargan-celeba128-w32", 128, StarGAN, "this package"),
    ("cyclegan-blond128-w32", 128, CycleGAN, "this package", "Blond_Hair"),
    ("stargan-celeba-128", 128, StarGAN, "StarGAN's celeba-128x128-5attrs.zip"),
    ("stargan-celeba-256", 256, StarGAN, "StarGAN's celeba-256x256-5attrs.zip"),
    ("stargan-v2-celeba-hq-256", 256, StarGANv2, "StarGAN v2's CelebA-HQ networks"),
    ("attgan-celeba-128", 128, AttGAN, "AttGAN-PyTorch's 128_shortcut1_inject1_none"),
    ("ganimation-celeba-128", 128, GANimation, "ganimation_replicate's ckpts/celebA"),
    ("cyclegan-vangogh-256", 256, CycleGAN, "CycleGAN's style_vangogh", "Van_Gogh"),
    ("aging-cacd-128", 128, AgingGAN, "Fast-AgingGAN's generator.h5"),
    ("cartoongan-shinkai", 128, CartoonGAN, "CartoonGAN's Shinkai style", "Shinkai"),
    ("cartoongan-hosoda", 128, CartoonGAN, "CartoonGAN's Hosoda style", "Hosoda"),
    ("animeganv3-cute", 256, AnimeGAN, "AnimeGANv3_tiny_Cute.onnx", "Cute"),
    ("dpr-512", 512, DPR, "DPR's trained_model_03.t7"),
)
_OWN = {row[0]: _entry(*row) for row in _TABLE}
_OWN["onnx"] = OnnxEntry(edits=EditSet(("Edit",), _ignored))
GENERATORS = _Generators("generator", _OWN)


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
    return loaded(name, weights, device, **options).network


def loaded(name: str, weights: str | Path | None, device: str, **options: object) -> Loaded:
    """Return what `load_generator` does, with what is known about it."""
    entry = GENERATORS[name]
    known = list(signature(entry.load).parameters)[2:]
    for option in set(options) - set(known):
        raise one_of(f"option of {name}", option, known or ["none"])
    return entry.load(weights, device, **options)
