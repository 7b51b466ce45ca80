"""The paper's attackers and those of related work, as presets of `salattack.attacks.Attack`."""

from dataclasses import replace

from .attacks import Attack
from .blur import BLUR_FAMILY, GAUSSIAN
from .errors import one_of
from .objective import SUCCESS

PLATEAU = 0.001  # a comment in Ruiz et al.'s code suggests this start for FGSM and I-FGSM

# DDN with FMN's falling γ, and steps that spare smooth areas. The bound is no limit in [-1, 1]. The
# start survives 8-bit rounding: at the photo itself the gradient is zero.
MINIMUM_NORM = Attack(
    bound=2.0,
    radius=0.05,
    step_size=0.05,
    steps=100,
    start=0.01,
    region="saliency",
    direction="gradient",
    until=SUCCESS,
    norm="texture",
)

ATTACKERS: dict[str, Attack] = {
    "fgsm": Attack(steps=1, step_size=None, start=PLATEAU),  # Eq. 8
    "i-fgsm": Attack(start=PLATEAU),  # Eq. 9
    "pgd": Attack(start=0.05),  # Madry et al.; Ruiz et al. start in the whole ball
    "spread-spectrum": Attack(blurs=BLUR_FAMILY),  # Ruiz et al., § 3.5
    "eot-blur": Attack(blurs=BLUR_FAMILY, blur_schedule="mean"),
    "saliency-aware": Attack(blurs=(GAUSSIAN,), region="saliency"),  # Eq. 10, § IV-A
    # L2-PGD (Madry et al. 2018): gradient steps in an L2 ball, clamped to an L-infinity bound too.
    "l2-pgd": Attack(bound=0.2, radius=0.025, start=PLATEAU, direction="gradient"),
    "nullifying": Attack(goal="nullify"),  # Yeh et al.; their distorting attack is I-FGSM's loss
    "class-iterative": Attack(start=PLATEAU, edits="cycle"),  # Ruiz et al.; joint is I-FGSM's
    "anti-forgery": Attack(start=PLATEAU, colours="ab"),
    "universal": Attack(start=PLATEAU, shared=True),  # CMUA
    "minimum-norm": MINIMUM_NORM,
    "minimum-norm-everywhere": replace(MINIMUM_NORM, region="everywhere"),
}

# What Table I compares: the paper's attackers, the baselines that it names, and L2-PGD.
TABLE = tuple(ATTACKERS)[:7]

# Bound and step relative to the others', where all are run at one strength.
RELATIVE = {"l2-pgd": (4.0, 1.0)}
LABELS = {name: name.title() for name in ATTACKERS} | {
    "fgsm": "FGSM",
    "i-fgsm": "I-FGSM",
    "pgd": "PGD",
    "eot-blur": "EoT-Blur",
    "l2-pgd": "L2-PGD",
    "minimum-norm-everywhere": "Minimum-Norm everywhere",
}


def label_of(name: str) -> str:
    """Return an attacker's name in tables and figures: a preset's label, or the name itself."""
    return LABELS.get(name, name)


def at_strength(name: str, bound: float, step_size: float, steps: int) -> Attack:
    """Return a preset whose strength corresponds to this bound and step, see `RELATIVE`.

    Raises:
        SalattackError: an unknown attacker, or a value out of range.
    """
    by_bound, by_step = RELATIVE.get(name, (1.0, 1.0))
    return attacker(name).with_strength(by_bound * bound, by_step * step_size, steps)


def attacker(name: str, **changes: object) -> Attack:
    """Return a preset of `ATTACKERS`, with the given attributes changed.

    Raises:
        SalattackError: an unknown attacker or attribute, or a value out of range.
    """
    if name not in ATTACKERS:
        raise one_of("attacker", name, ATTACKERS)
    known = Attack.__dataclass_fields__
    for change in changes:
        if change not in known:
            raise one_of("attack parameter", change, known)
    return replace(ATTACKERS[name], **changes)
