"""Weight files of other frameworks, read as arrays: HDF5, ONNX and folders of ``.npy``.

Only numbers are taken: Keras' configuration and ONNX' graph are not interpreted.
"""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import SalattackError


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


def read_arrays(path: Path) -> dict[str, Tensor]:
    """Return the arrays of a ``.h5`` or ``.onnx`` file or of a folder, by name, as float32.

    Names are an HDF5 dataset's path, an ONNX initialiser's name, or a ``.npy`` file's stem.
    """
    read = _read_npy if path.is_dir() else READERS[path.suffix]
    try:
        arrays = {name: np.array(value, np.float32) for name, value in read(path).items()}
    except SalattackError:
        raise
    except Exception as error:  # each library raises its own kinds
        problem = f"{path.name} is not a readable weights file ({said(error)})"
        raise SalattackError(f"{problem}; fetch it again") from error
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _read_npy(path: Path) -> dict[str, Any]:
    found = {}
    for file in sorted(path.glob("*.npy")):
        try:
            found[file.stem] = np.load(file, allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            problem = f"{path.name}/{file.name} is not a readable array of numbers ({error})"
            raise SalattackError(f"{problem}; fetch it again") from error
    if found:
        return found
    raise SalattackError(f"the folder {path} holds no .npy files; check the path")


def _read_hdf5(path: Path) -> dict[str, Any]:
    h5py = needed("h5py", f"reading {path.name}")
    found = {}

    def take(name: str, item: object) -> None:  # links to other files are not visited
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with h5py.File(path, "r") as file:
        file.visititems(take)
    return found


def _read_onnx(path: Path) -> dict[str, Any]:
    onnx = needed("onnx", f"reading {path.name}")
    model = onnx.load(path)
    return {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}


READERS = {".h5": _read_hdf5, ".hdf5": _read_hdf5, ".onnx": _read_onnx}
