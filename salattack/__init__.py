"""Defending deepfakes by saliency-aware attack: the paper's method, attackers and experiments.

A name in `__all__` is imported when it is first used, so ``import salattack`` is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_MODULES = {
    "attacks": ("Attack", "universal_perturbation"),
    "edits": ("ATTRIBUTES", "EditSet", "edit_labels"),
    "errors": ("SalattackError",),
    "experiments.evaluation": ("evaluate",),
    "experiments.study": ("open_study",),
    "experiments.table_1": ("table_1",),
    "faces": ("load_faces",),
    "generators": ("Ensemble", "load_generator"),
    "images": ("as_saved", "to_pil", "to_tensor"),
    "metrics": ("fake_damage", "photo_change"),
    "presets": ("ATTACKERS", "attacker"),
    "protect.disruption": ("load_protector",),
    "protect.protection": ("protect_photo",),
    "saliency": ("load_saliency",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
__all__ = [
    "ATTACKERS",
    "ATTRIBUTES",
    "Attack",
    "EditSet",
    "Ensemble",
    "SalattackError",
    "as_saved",
    "attacker",
    "edit_labels",
    "evaluate",
    "fake_damage",
    "load_faces",
    "load_generator",
    "load_protector",
    "load_saliency",
    "open_study",
    "photo_change",
    "protect_photo",
    "table_1",
    "to_pil",
    "to_tensor",
    "universal_perturbation",
]

if TYPE_CHECKING:
    from .attacks import Attack, universal_perturbation
    from .edits import ATTRIBUTES, EditSet, edit_labels
    from .errors import SalattackError
    from .experiments.evaluation import evaluate
    from .experiments.study import open_study
    from .experiments.table_1 import table_1
    from .faces import load_faces
    from .generators import Ensemble, load_generator
    from .images import as_saved, to_pil, to_tensor
    from .metrics import fake_damage, photo_change
    from .presets import ATTACKERS, attacker
    from .protect.disruption import load_protector
    from .protect.protection import protect_photo
    from .saliency import load_saliency


def __getattr__(name: str) -> object:
    """Import one of the public names (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
