"""What is needed to repeat a run: versions, hardware, checksums, durations."""

import os
import platform
import re
import shlex
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch

from ..errors import SalattackError
from ..experiments.evaluation import sample_size
from ..faces import load_faces
from ..faces.sets import Faces
from ..generators import GENERATORS
from ..runtime import assets
from ..runtime.files import sha256
from ..runtime.weights import SHIPPED
from ..saliency import SALIENCY_MODELS

PACKAGES = ("torch", "torchvision", "torchmetrics", "numpy", "scipy", "pillow", "openpeople")


def manifest(runs: Mapping, made: Iterable[Path], settings: Mapping, jobs: int = 1) -> dict:
    """Return what is needed to repeat a run that wrote the files ``made``.

    ``runs`` holds each notebook's parameters and seconds, ``settings`` the common parameters.
    """
    models = [GENERATORS[settings.get("generator", "stargan-celeba128-w32")]]
    models += [SALIENCY_MODELS[settings.get("saliency", "pfan-light")]]
    weights = {path.name: sha256(path) for path in sorted(SHIPPED.glob("*.safetensors"))}
    for key, model in zip(("generator_weights", "saliency_weights"), models, strict=True):
        if path := settings.get(key):
            weights[Path(path).name] = sha256(Path(path))
        elif model.asset:
            weights[model.file] = assets.checked(model.asset)[1]
    compared = runs["attack_comparison"]["parameters"]
    faces = load_faces(
        compared.get("faces", "openpeople"),
        n_images=sample_size(compared["profile"])
        if compared.get("profile")
        else compared["n_images"],
        split=compared.get("split"),
        seed=compared.get("seed", 0),
    )
    return provenance() | {
        "command": shlex.join(["salattack", "reproduce", *_options(settings)]),
        "jobs": jobs,
        "seed": settings.get("seed", 0),
        "notebooks": runs,
        "weights": weights,
        "inputs": {name: _checksum(faces, i) for i, name in enumerate(faces.ids)},
        "outputs": {path.name: sha256(path) for path in made},
    }


def provenance() -> dict:
    """Return when, with which versions and on what hardware this process runs."""
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in ("salattack", *PACKAGES)},
        "hardware": hardware(),
    }


def _options(settings: Mapping) -> Iterable[str]:
    """Return settings as options; of a path only its name, which tells nothing of the machine."""
    for name, value in settings.items():
        text = Path(value).name if isinstance(value, str) and os.sep in value else value
        yield from ("-p", f"{name}={text}")


def _checksum(faces: Faces, index: int) -> str | None:
    try:
        return faces.checksum(index)
    except SalattackError:  # unreadable; the ledger says why
        return None


def hardware() -> dict:
    """Return processor, cores, threads that torch uses, and CUDA devices."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file() and (found := re.search(r"model name\s*:\s*(.+)", info.read_text())):
        cpu = found[1]
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": cpu,
        "cores": os.cpu_count(),
        "threads": int(os.environ.get("OMP_NUM_THREADS") or torch.get_num_threads()),
        "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }
