"""Weight files: read without running anything in them, checked before they are used."""

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from .errors import SalattackError

SHIPPED = Path(__file__).parent / "weights"


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_state_dict(path: str | Path, *, expected_sha256: str | None = None) -> dict:
    """Read a state dict from ``.safetensors`` or, tensors only, from a torch checkpoint.

    Args:
        path: the file.
        expected_sha256: refuse a file with another checksum.

    Returns:
        What the file holds: parameter names to float32 tensors (other entries as they are).

    Raises:
        SalattackError: no such file, another checksum, a damaged file, or a pickle that holds
            anything but tensors (it is never executed).
    """
    path = Path(path)
    if not path.is_file():
        raise SalattackError(f"no weights file at {path}; check the path")
    if expected_sha256 is not None and (found := sha256(path)) != expected_sha256:
        raise SalattackError(
            f"{path.name} is damaged: sha256 {found[:12]}…, expected {expected_sha256[:12]}…; "
            "reinstall the package or fetch the file again"
        )
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
        f"{k}: shape {tuple(state[k].shape)} instead of {tuple(own[k].shape)}"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    if misfits:
        more = f" and {len(misfits) - 3} more" if len(misfits) > 3 else ""
        raise SalattackError(
            f"{source} does not fit {type(module).__name__}: {'; '.join(misfits[:3])}{more}"
        )
    module.load_state_dict(dict(state))
    return module
