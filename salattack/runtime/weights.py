"""Weight files: read without running anything in them, checked before they are used.

Of other frameworks' files only numbers are taken: not Keras' configuration, not ONNX' graph.
"""

import importlib
import pickle
import warnings
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from textwrap import shorten
from types import ModuleType
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from ..edits import LABEL_EDITS, EditSet
from ..errors import SalattackError, one_of
from . import assets
from .device import frozen, pick_device
from .files import RESOURCES, sha256

SHIPPED_WEIGHTS = RESOURCES / "weights"  # the folder


def needed(package: str, what: str) -> ModuleType:
    """Import an optional package; the message says ``what`` needs it where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        advice = "pip install 'salattack[generators]'"
        raise SalattackError(f"{what} needs the package {package}: {advice}") from error


def said(error: Exception) -> str:
    """Return the first line of a library's message, for a sentence of ours."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")


def _read_hdf5(path: Path) -> dict[str, Any]:
    h5py = needed("h5py", f"reading {path.name}")
    names: list[str] = []
    with h5py.File(path, "r") as file:
        file.visit(names.append)  # links to other files are not visited
        return {name: file[name][()] for name in names if isinstance(file[name], h5py.Dataset)}


def _read_npy(path: Path) -> dict[str, Any]:
    return {path.stem: np.load(path, allow_pickle=False)}


def _read_onnx(path: Path) -> dict[str, Any]:
    onnx = needed("onnx", f"reading {path.name}")
    model = onnx.load(path)
    return {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}


READERS = {".h5": _read_hdf5, ".hdf5": _read_hdf5, ".npy": _read_npy, ".onnx": _read_onnx}


def _content(path: Path) -> object:
    """Return what a file holds, arrays of `READERS` as float32 tensors."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix not in READERS:
            return torch.load(path, map_location="cpu", weights_only=True)
        found = READERS[path.suffix](path).items()
        return {name: torch.from_numpy(np.array(value, np.float32)) for name, value in found}
    except SalattackError:
        raise
    except pickle.UnpicklingError as error:
        problem = f"{path.name} holds more than tensors and was not executed"
        advice = "convert it to .safetensors where you trust its source"
        raise SalattackError(f"{problem}; {advice}") from error
    except Exception as error:  # each library raises its own kinds
        problem = f"{path.name} is not a readable weights file ({said(error)})"
        raise SalattackError(f"{problem}; fetch it again") from error


def read_state_dict(path: str | Path) -> dict:
    """Return what a weights file holds: parameter names to float32 tensors, and other entries.

    The file is ``.safetensors``, a torch checkpoint, HDF5, ONNX, or a folder of ``.npy``. Names
    are then an HDF5 dataset's path, an ONNX initialiser's name, or a file's stem. Of a torch
    checkpoint tensors only are read, and no code in it is executed.

    Raises:
        SalattackError: no such file, a damaged one, or a pickle that holds anything but tensors.
    """
    path = Path(path)
    if not path.exists():
        raise SalattackError(f"no weights file at {path}; check the path")
    files = sorted(path.glob("*.npy")) if path.is_dir() else [path]
    if not files:
        raise SalattackError(f"the folder {path} holds no .npy files; check the path")
    state: dict = {}
    for found in map(_content, files):
        if not isinstance(found, Mapping):
            kind = type(found).__name__
            raise SalattackError(f"{path.name} does not hold a state dict but a {kind}")
        state |= found
    floats = (k for k, v in state.items() if torch.is_tensor(v) and v.is_floating_point())
    return state | {key: state[key].float() for key in floats}


def fit(module: nn.Module, state: Mapping, source: str) -> nn.Module:
    """Load ``state`` into ``module``; a SalattackError says what does not fit."""
    try:
        module.load_state_dict(dict(state))
    except RuntimeError as error:
        misfits = shorten(str(error).partition("\n")[2], 300, placeholder=" …")
        raise SalattackError(f"{source} does not fit {type(module).__name__}: {misfits}") from error
    return module


class Loaded(NamedTuple):
    """What one look-up in a registry gives."""

    network: nn.Module  # filled, frozen, in eval mode, on its device
    edits: EditSet  # what a generator can be asked for
    image_size: int  # side in pixels that the network was trained for
    sha256: str  # of the file or folder that filled it


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A registry entry: how a network is built, and which file fills it."""

    build: Callable[[Mapping], nn.Module]  # from the prepared state dict, whose widths it takes
    prepare: Callable[[Mapping], Mapping] = dict  # from what the file holds to a state dict
    file: str  # the weight file's name; in the package when ``shipped``
    sha256: str | None = None  # a shipped file must have it; another file is warned about
    licence: str  # of the weights
    source: str  # where the file comes from
    shipped: bool = False  # whether the package holds the file
    asset: str | None = None  # what `salattack.runtime.assets` knows it by, where it does not
    image_size: int = 128  # side in pixels that the network was trained for
    read: Callable[[Path], dict] = read_state_dict  # from the file to what it holds
    edits: EditSet = LABEL_EDITS  # what a generator can be asked for
    options: ClassVar[tuple[str, ...]] = ()  # what `load` takes besides

    @classmethod
    def of_asset(cls, name: str, **more: Any) -> Self:
        """Return the entry of a published file, with what its asset tells and ``more`` fields."""
        asset = assets.ASSETS[name]
        checksum = asset.checksum.removeprefix("sha256:") or None
        facts = {"file": asset.path.name, "licence": asset.licence, "source": asset.address}
        return cls(asset=name, sha256=checksum, **facts, **more)

    def load(
        self, weights: str | Path | None = None, device: str = "auto", **options: Any
    ) -> Loaded:
        """Read the weights and return the network with what belongs to it.

        ``weights`` are used instead of the shipped or the fetched file. Another checksum than the
        published one is a warning.

        Raises:
            SalattackError: no file, a damaged file, code in the file, keys or shapes that do not
                fit, an unknown device.
        """
        chosen, found = pick_device(device), ""
        if weights is not None:
            source = Path(weights)
        elif self.shipped:
            source = SHIPPED_WEIGHTS / self.file
        elif self.asset is None:
            raise SalattackError(f"{self.file} is not in the package; pass its path")
        else:
            source, found = assets.checked(self.asset)
        network = self._network(source, **options)
        found = found or sha256(source)
        if self.sha256 not in (None, found):
            difference = self._difference(source, found)
            if self.shipped and weights is None:
                damage = f"{source.name} is damaged: {difference}"
                raise SalattackError(f"{damage}; reinstall the package")
            if not self.shipped:
                problem = f"{source.name} is not the published {self.file}: {difference}"
                warnings.warn(problem, stacklevel=4)
        return Loaded(frozen(network, chosen), self.edits, self.image_size, found)

    def _network(self, source: Path) -> nn.Module:
        state = self.prepare(self.read(source))
        return fit(self.build(state), state, source.name)

    def _difference(self, source: Path, found: str) -> str:
        """Say how a file is not the one that is meant; of a folder, which file is not."""
        files = assets.known(self.asset).files if self.asset and source.is_dir() else {}
        for name, wanted in files.items():
            if (source / name).is_file() and sha256(source / name) != wanted:
                return f"{name} is another file"
        return f"sha256 {found[:12]}…, expected {self.sha256[:12]}…"


class Registry(UserDict[str, Entry]):
    """Entries by name; an unknown name is a `SalattackError` that lists the known ones.

    Installed packages add theirs by entry points of the ``group``. These are loaded when the list
    of all names, or a name that is not ours, is first asked for: they may import the registry.
    """

    def __init__(self, kind: str, entries: Mapping[str, Entry], group: str = "") -> None:
        self.kind, self.group = kind, group
        super().__init__(entries)

    def _all(self) -> dict[str, Entry]:
        group, self.group = self.group, ""  # at once: a package may look into the registry itself
        for found in entry_points(group=group) if group else ():
            try:
                self.data.setdefault(found.name, found.load())
            except Exception as error:  # another package's fault must not stop this one
                what = f"the {self.kind} {found.name!r} of an installed package"
                warnings.warn(f"{what} cannot be used: {error}", stacklevel=3)
        return self.data

    def __contains__(self, name: object) -> bool:
        return name in self.data or name in self._all()

    def __missing__(self, name: str) -> Entry:
        if name in self:
            return self.data[name]
        raise one_of(self.kind, name, self)

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def get(self, name: str, default: Entry | None = None) -> Entry | None:
        """Return the entry of that name, or the default; Python 3.11 expects a KeyError here."""
        return self[name] if name in self else default  # noqa: SIM401

    def load(self, name: str, weights: str | Path | None, device: str, **options: object) -> Loaded:
        """Return the network of that name and what is known about it, see `Entry.load`.

        Another option than the entry's ``options`` is a SalattackError.
        """
        entry = self[name]
        for option in options.keys() - set(entry.options):
            raise one_of(f"option of {name}", option, entry.options or ["none"])
        return entry.load(weights, device, **options)
