"""The known generators: which file fills which network, and what it can be asked for."""

import warnings
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

from ..edits import EditSet
from ..runtime import assets
from ..runtime.weights import Model, without_statistics
from . import attgan, cyclegan, ganimation, stargan, stargan_v2
from .stargan import StarGAN


def _stargan_like(state: Mapping) -> StarGAN:
    first = state.get("main.0.weight")
    if first is None or first.ndim != 4 or first.shape[1] <= 3:
        return StarGAN()  # does not fit, and `fit` says how
    return StarGAN(conv_dim=first.shape[0], c_dim=first.shape[1] - 3)


def _published(
    name: str, size: int, build: Callable, prepare: Callable, of: str, edits: EditSet
) -> Model:
    asset = assets.known(name)
    return Model(
        build=build,
        prepare=prepare,
        file=asset.path.name,
        sha256=asset.checksum.removeprefix("sha256:") if asset.checksum else None,
        licence=asset.licence,
        source=f"{of} ({asset.address})",
        shipped=False,
        asset=name,
        image_size=size,
        edits=edits,
    )


def _stargan(size: int) -> Model:
    archive = f"StarGAN's celeba-{size}x{size}-5attrs.zip"
    name, edits = f"stargan-celeba-{size}", stargan.EDITS
    return _published(name, size, _stargan_like, without_statistics, archive, edits)


def _other(
    name: str, size: int, adapter: ModuleType, of: str, edits: EditSet | None = None
) -> Model:
    edits = edits or adapter.EDITS
    return _published(name, size, adapter.like, adapter.prepare, of, edits)


def _shipped(name: str, build: Callable, prepare: Callable, sha256: str, edits: EditSet) -> Model:
    return Model(
        build=build,
        prepare=prepare,
        file=f"{name}.safetensors",
        sha256=sha256,
        licence="research use: trained on CelebA crops (non-commercial)",
        source="this package",
        shipped=True,
        image_size=128,
        edits=edits,
    )


class _Registry(UserDict[str, Model]):
    """Models by name, those of installed packages included: entry points "salattack.generators".

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

    def __missing__(self, name: str) -> Model:
        self._load(name)
        return self.data[name]

    def __iter__(self) -> Iterator[str]:
        self._load(*self._installed)
        return iter(self.data)

    def __len__(self) -> int:
        return len(list(iter(self)))


_BUILT_IN = {
    "stargan-celeba128-w32": _shipped(
        "stargan-celeba128-w32",
        _stargan_like,
        without_statistics,
        "e420d9f3b8ce126ec300c0684b847bda44622b075593b00a64c5b9b988bf9e26",
        stargan.EDITS,
    ),
    "cyclegan-blond128-w32": _shipped(
        "cyclegan-blond128-w32",
        cyclegan.like,
        cyclegan.prepare,
        "2c25f32baebf394a73cc2e97df9667eac0e16e7d40141ac3d38d6b5f81a5ce5a",
        cyclegan.only("Blond_Hair"),
    ),
} | {
    model.asset: model
    for model in (
        _stargan(128),
        _stargan(256),
        _other("stargan-v2-celeba-hq-256", 256, stargan_v2, "StarGAN v2's CelebA-HQ networks"),
        _other("attgan-celeba-128", 128, attgan, "AttGAN-PyTorch's 128_shortcut1_inject1_none"),
        _other("ganimation-celeba-128", 128, ganimation, "ganimation_replicate's ckpts/celebA"),
        _other(
            "cyclegan-vangogh-256",
            256,
            cyclegan,
            "CycleGAN's style_vangogh",
            cyclegan.only("Van_Gogh"),
        ),
    )
}
GENERATORS = _Registry(_BUILT_IN)
