"""Weight files of other frameworks, read as arrays: HDF5, ONNX and folders of ``.npy``.

Only numbers are taken. A model description inside a file (Keras' configuration, ONNX' graph) is
not interpreted, and nothing is unpickled.
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

    Raises:
        SalattackError: a damaged file, entries that are not numbers, a missing package.
    """
    read = _read_folder if path.is_dir() else READERS[path.suffix]
    try:
        arrays = {name: np.array(value, np.float32) for name, value in read(path).items()}
    except SalattackError:
        raise
    except Exception as error:  # each library raises its own kinds
        problem = f"{path.name} is not a readable weights file ({said(error)})"
        raise SalattackError(f"{problem}; fetch it again") from error
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _read_folder(path: Path) -> dict[str, Any]:
    files = sorted(path.glob("*.npy"))
    if not files:
        raise SalattackError(f"the folder {path} holds no .npy files; check the path")
    return {file.stem: _array(file) for file in files}


def _array(file: Path) -> np.ndarray:
    try:
        return np.load(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        problem = f"{file.parent.name}/{file.name} is not a readable array of numbers ({error})"
        raise SalattackError(f"{problem}; fetch it again") from error


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
