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
from ..experiments.samples import MODELS
from ..faces import load_faces
from ..faces.sets import Faces
from ..runtime import assets
from ..runtime.files import sha256
from ..runtime.weights import SHIPPED_WEIGHTS

PACKAGES = ("torch", "torchvision", "torchmetrics", "numpy", "scipy", "pillow", "openpeople")


def manifest(runs: Mapping, made: Iterable[Path], settings: Mapping, jobs: int = 1) -> dict:
    """Return what is needed to repeat a run that wrote the files ``made``.

    ``runs`` holds each notebook's parameters and seconds, ``settings`` the common parameters. The
    models and faces are those of the notebook ``attack_comparison``.
    """
    compared = runs["attack_comparison"]["parameters"]
    weights = {path.name: sha256(path) for path in sorted(SHIPPED_WEIGHTS.glob("*.safetensors"))}
    for kind, known in MODELS.items():
        model, path = known[compared[kind]], compared[f"{kind}_weights"]
        if path:
            weights[Path(path).name] = sha256(Path(path))
        elif model.asset:
            weights[model.file] = assets.checked(model.asset)[1]
    chosen = {name: compared[name] for name in ("n_images", "split", "seed")}
    if compared["profile"]:
        chosen["n_images"] = sample_size(compared["profile"])
    faces = load_faces(compared["faces"], **chosen)
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
    """Return when, with which versions and on what hardware this process runs.

    The hardware is processor, cores, threads that torch uses, and CUDA devices.
    """
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file() and (found := re.search(r"model name\s*:\s*(.+)", info.read_text())):
        cpu = found[1]
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in ("salattack", *PACKAGES)},
        "hardware": {
            "system": f"{platform.system()} {platform.machine()}",
            "processor": cpu,
            "cores": os.cpu_count(),
            "threads": int(os.environ.get("OMP_NUM_THREADS") or torch.get_num_threads()),
            "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
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
