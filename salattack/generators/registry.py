"""The known generators: which file fills which network, and what it can be asked for."""

import warnings
from collections.abc import Iterator
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

from ..edits import EditSet
from ..runtime import assets
from ..runtime.weights import Entry, Registry
from . import aging, animegan, attgan, cartoongan, cyclegan, dpr, ganimation, stargan, stargan_v2
from .cyclegan import only
from .onnx_model import OnnxEntry


class _Generators(Registry):
    """The package's own and those of installed packages: entry points "salattack.generators".

    A package's entry is loaded when its name, or the list of all names, is first asked for. It may
    import this module, which is complete by then.
    """

    @cached_property
    def _installed(self) -> dict[str, EntryPoint]:
        return {found.name: found for found in entry_points(group="salattack.generators")}

    def _load(self, *names: str) -> None:
        for name in names:
            if name in self.data or name not in self._installed:
                continue
            found = self._installed.pop(name)  # its module may look into the registry itself
            try:
                self.data[name] = found.load()
            except Exception as error:  # another package's fault must not stop this one
                self._installed[name] = found
                text = f"the generator {name!r} of an installed package cannot be used: {error}"
                warnings.warn(text, stacklevel=3)

    def __contains__(self, name: object) -> bool:
        self._load(name)
        return name in self.data

    def __missing__(self, name: str) -> Entry:
        return self.data[name] if name in self else super().__missing__(name)

    def __iter__(self) -> Iterator[str]:
        self._load(*self._installed)
        return iter(self.data)

    def __len__(self) -> int:
        return len(list(iter(self)))


def _entry(name: str, size: int, adapter: ModuleType, source: str, *edits: EditSet) -> Entry:
    """Return the entry of a generator that is shipped or that `salattack assets fetch` brings."""
    asset = assets.ASSETS.get(name)
    return Entry(
        build=adapter.like,
        prepare=adapter.prepare,
        file=asset.path.name if asset else f"{name}.safetensors",
        sha256=(asset.checksum.removeprefix("sha256:") or None) if asset else CHECKSUMS[name],
        licence=asset.licence if asset else LICENCE,
        source=f"{source} ({asset.address})" if asset else source,
        shipped=asset is None,
        asset=name if asset else None,
        image_size=size,
        edits=edits[0] if edits else adapter.EDITS,
    )


CHECKSUMS = {
    "stargan-celeba128-w32": "e420d9f3b8ce126ec300c0684b847bda44622b075593b00a64c5b9b988bf9e26",
    "cyclegan-blond128-w32": "2c25f32baebf394a73cc2e97df9667eac0e16e7d40141ac3d38d6b5f81a5ce5a",
}
LICENCE = "research use: trained on CelebA crops (non-commercial)"
_TABLE = (
    ("stargan-celeba128-w32", 128, stargan, "this package"),
    ("cyclegan-blond128-w32", 128, cyclegan, "this package", only("Blond_Hair")),
    ("stargan-celeba-128", 128, stargan, "StarGAN's celeba-128x128-5attrs.zip"),
    ("stargan-celeba-256", 256, stargan, "StarGAN's celeba-256x256-5attrs.zip"),
    ("stargan-v2-celeba-hq-256", 256, stargan_v2, "StarGAN v2's CelebA-HQ networks"),
    ("attgan-celeba-128", 128, attgan, "AttGAN-PyTorch's 128_shortcut1_inject1_none"),
    ("ganimation-celeba-128", 128, ganimation, "ganimation_replicate's ckpts/celebA"),
    ("cyclegan-vangogh-256", 256, cyclegan, "CycleGAN's style_vangogh", only("Van_Gogh")),
    ("aging-cacd-128", 128, aging, "Fast-AgingGAN's generator.h5"),
    ("cartoongan-shinkai", 128, cartoongan, "CartoonGAN's Shinkai style", only("Shinkai")),
    ("cartoongan-hosoda", 128, cartoongan, "CartoonGAN's Hosoda style", only("Hosoda")),
    ("animeganv3-cute", 256, animegan, "AnimeGANv3_tiny_Cute.onnx", only("Cute")),
    ("dpr-512", 512, dpr, "DPR's trained_model_03.t7"),
)
_OWN = {row[0]: _entry(*row) for row in _TABLE}
GENERATORS = _Generators("generator", _OWN | {"onnx": OnnxEntry(edits=only("Edit"))})
