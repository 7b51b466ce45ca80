"""Weight files: read without running anything in them, checked before they are used."""

import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from ..edits import EditSet
from ..errors import SalattackError
from . import assets
from .device import frozen, pick_device
from .files import RESOURCES, sha256, written_whole
from .formats import READERS, read_arrays

SHIPPED = RESOURCES / "weights"


def read_state_dict(path: str | Path, *, expected_sha256: str | None = None) -> dict:
    """Read a state dict from ``.safetensors`` or, tensors only, from a torch checkpoint.

    Arrays are also read from HDF5, from ONNX and from folders of ``.npy`` files.

    Args:
        path: the file or folder.
        expected_sha256: refuse a file with another checksum.

    Returns:
        What the file holds: parameter names to float32 tensors (other entries as they are).

    Raises:
        SalattackError: no such file, another checksum, a damaged file, or a pickle that holds
            anything but tensors (it is never executed).
    """
    path = Path(path)
    if not path.exists():
        raise SalattackError(f"no weights file at {path}; check the path")
    if expected_sha256 is not None and (found := sha256(path)) != expected_sha256:
        raise SalattackError(
            f"{path.name} is damaged: sha256 {found[:12]}…, expected {expected_sha256[:12]}…; "
            "reinstall the package or fetch the file again"
        )
    if path.is_dir() or path.suffix in READERS:
        return read_arrays(path)
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise SalattackError(
            f"{path.name} holds more than tensors and was not executed; "
            "convert it to .safetensors where you trust its source"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise SalattackError(f"{path.name} is not a readable weights file ({error})") from error
    if not isinstance(state, Mapping):
        raise SalattackError(f"{path.name} does not hold a state dict but a {type(state).__name__}")
    return {
        k: v.float() if torch.is_tensor(v) and v.is_floating_point() else v
        for k, v in state.items()
    }


def fit(module: nn.Module, state: Mapping, source: str) -> nn.Module:
    """Load ``state`` into ``module``; every key and shape must fit.

    Raises:
        SalattackError: names the first three keys that are missing, unknown or of another shape.
    """
    own = module.state_dict()
    misfits = [f"{k}: missing" for k in own if k not in state]
    misfits += [f"{k}: not in {type(module).__name__}" for k in state if k not in own]
    misfits += [
        f"{k}: shape {tuple(getattr(state[k], 'shape', ()))} instead of {tuple(own[k].shape)}"
        for k in own
        if k in state and getattr(state[k], "shape", None) != own[k].shape
    ]
    if misfits:
        more = f" and {len(misfits) - 3} more" if len(misfits) > 3 else ""
        raise SalattackError(
            f"{source} does not fit {type(module).__name__}: {'; '.join(misfits[:3])}{more}"
        )
    module.load_state_dict(dict(state))
    return module


@dataclass(frozen=True, kw_only=True)
class Model:
    """A registry entry: how a network is built, and which file fills it.

    Attributes:
        build: from the (prepared) state dict to the network that it should fit; widths are read
            off the tensors.
        prepare: from what the file holds to the state dict of parameters.
        file: the weight file's name; in the package when ``shipped``.
        sha256: its checksum; a shipped file must have it, another file is warned about.
        licence: of the weights.
        source: where the file comes from.
        shipped: whether the package holds the file.
        asset: what `salattack.runtime.assets` knows it by, where it does not.
        image_size: side in pixels that the network was trained for.
        read: from the file to what it holds.
        edits: what a generator can be asked for; None for StarGAN's five.
    """

    build: Callable[[Mapping], nn.Module]
    prepare: Callable[[Mapping], Mapping] = dict
    file: str
    sha256: str | None
    licence: str
    source: str
    shipped: bool
    asset: str | None = None
    image_size: int
    read: Callable[[Path], dict] = read_state_dict
    edits: EditSet | None = None

    def load(self, weights: str | Path | None = None, device: str = "auto") -> nn.Module:
        """Return the network, filled, frozen, in eval mode, on ``device``.

        Args:
            weights: a file to use instead of the shipped one or, where none is shipped, of the
                one that `salattack assets fetch` brought.
            device: see `pick_device`.

        Raises:
            SalattackError: no file, a damaged file, code in the file, keys or shapes that do not
                fit, an unknown device.

        Warns:
            UserWarning: a published file whose checksum is not the known one.
        """
        chosen, found = pick_device(device), None
        if weights is not None:
            source = Path(weights)
            network = self._filled(self.read(source), source)
        elif self.shipped:
            source = SHIPPED / self.file
            network = self._filled(read_state_dict(source, expected_sha256=self.sha256), source)
        else:
            source, found = self._cached()
            network = self._converted(source, found)
        if not self.shipped and self.sha256 and (found := found or sha256(source)) != self.sha256:
            warnings.warn(
                f"{source.name} is not the published {self.file}: "
                f"sha256 {found[:12]}…, expected {self.sha256[:12]}…",
                stacklevel=3,
            )
        return frozen(network, chosen)

    def _filled(self, state: Mapping, source: Path) -> nn.Module:
        state = self.prepare(state)
        return fit(self.build(state), state, source.name)

    def _cached(self) -> tuple[Path, str]:
        if self.asset is None:
            raise SalattackError(f"{self.file} is not in the package; pass its path")
        if not assets.known(self.asset).path.exists():
            raise SalattackError(
                f"{self.file} is not in the package; get it from {self.source}: "
                f"run `salattack assets fetch {self.asset}`, or pass its path"
            )
        return assets.checked(self.asset)

    def _converted(self, source: Path, found: str) -> nn.Module:
        """Fill the network from a cached file's safetensors copy, made once and kept beside it."""
        copy = source.with_name(f"{self.asset}.safetensors")
        if _source_of(copy) == found:
            return self._filled(read_state_dict(copy), copy)
        network = self._filled(read_state_dict(source), source)
        state = {key: value.contiguous() for key, value in network.state_dict().items()}
        with written_whole(copy) as beside:
            save_file(state, beside, {"source": source.name, "source_sha256": found})
        return network


def _source_of(copy: Path) -> str | None:
    """Return the checksum of what a safetensors file was made from; None if that is unknown."""
    try:
        with safe_open(copy, "pt") as file:
            return (file.metadata() or {}).get("source_sha256")
    except (SafetensorError, OSError):
        return None


WRAPPERS = ("generator", "G", "netG", "state_dict")


def unwrapped(state: Mapping) -> dict:
    """Take the generator's parameters out of a checkpoint that wraps them under a name.

    What lies beside them there, discriminators and optimisers, is no part of the generator.
    DataParallel's "module." goes from every key.
    """
    inner = next((state[w] for w in WRAPPERS if isinstance(state.get(w), Mapping)), state)
    return {str(key).removeprefix("module."): value for key, value in inner.items()}


def without_statistics(state: Mapping) -> dict:
    """Drop running statistics, for networks that always normalise by the instance's own."""
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return {key: value for key, value in state.items() if not str(key).endswith(statistics)}


def shape_of(state: Mapping, key: str, dimensions: int) -> tuple[int, ...] | None:
    """Return the shape of a tensor of a state dict; None if it is not there, or not so deep."""
    shape = getattr(state.get(key), "shape", ())
    return tuple(shape) if len(shape) == dimensions else None
