"""The smallest change of the photo that breaks the fake, beside attackers of a fixed strength.

Table I fixes the strength and shows how little the photo changes. Here the fake has to break, and
the change that this takes is what is measured. Any `Study` will do, whatever its generator.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from ..attacks import Attack
from ..errors import SalattackError
from ..presets import MINIMUM_NORM, attacker
from .demonstration import Example, example
from .evaluation import at_bounds, evaluate_variants
from .statistics import mean_over_faces, median_over_people, share_of_rows, summarised
from .study import Study

SMALLEST = ("minimum-norm", "minimum-norm-everywhere")
Key = tuple[str, float]  # of an attacker: its name and bound
ESTIMATES = {
    "success": share_of_rows,
    **dict.fromkeys(("psnr", "ssim"), median_over_people),
    **dict.fromkeys(("l1", "l2", "background_l1", "damage_l2"), mean_over_faces),
}


def attacks(
    fixed: Sequence[str],
    strengths: Sequence[tuple[float, float, int]],
    smallest: Sequence[str] = SMALLEST,
    gradients: int = MINIMUM_NORM.steps,
    *,
    seed: int = 0,
) -> dict[Key, Attack]:
    """Return `at_bounds` of the ``fixed`` attackers, and once the minimum-norm ones, ``smallest``.

    The bound of these is no limit, and they spend so many ``gradients`` on a photo and an edit.

    Raises:
        SalattackError: an unknown attacker, or ``smallest`` names one of a fixed strength.
    """
    chosen = at_bounds(fixed, strengths, seed)
    for name in smallest:
        attack = attacker(name, steps=gradients, seed=seed)
        if attack.until is None:
            raise SalattackError(f"{name} has a fixed strength; give it in fixed")
        chosen[name, attack.bound] = attack
    return chosen


def measure(study: Study, attacks: Mapping[Key, Attack], **options: object) -> pd.DataFrame:
    """Return the rows of `attacks` by ``attacker`` and ``bound``, with the ``gradients`` of each.

    Options and errors are those of `evaluate_variants`.
    """
    rows = evaluate_variants(study, attacks, ("attacker", "bound"), **options)
    keys = zip(rows["attacker"], rows["bound"], strict=True)
    return rows.assign(gradients=[attacks[key].gradients for key in keys])


def summarise(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Summarise `measure` for each attacker and bound (and ``generator``), as they first appear.

    Columns: ``faces`` and ``samples`` (a face and an edit each); ``success``, the share of broken
    fakes; the medians over samples of ``psnr`` in dB and ``ssim``; the other means over faces, in
    [-1, 1]; each with ``_low`` and ``_high`` (95 %); and ``gradients`` for each sample.
    """
    keys = [name for name in ("generator", "attacker", "bound") if name in rows]
    table = summarised(rows, keys, ESTIMATES, seed)
    groups = rows.groupby(keys, sort=False)["gradients"]
    table.insert(1, "samples", groups.size())
    return table.assign(gradients=groups.mean())


def examples(
    study: Study,
    attacks: Mapping[Key, Attack],
    rows: pd.DataFrame,
    n: int,
    names: Sequence[str] = ("saliency-aware", "minimum-norm"),
) -> list[Example]:
    """Disrupt the first ``n`` faces again, to show them; each on the edit that its rows begin with.

    An attacker of a fixed strength is shown at the least bound that breaks the fake by the
    ``rows`` of `measure`, or at the greatest where none does.

    Raises:
        SalattackError: an attacker that the rows lack.
    """
    faces, found = study.readable().faces, []
    for place, face_id in enumerate(faces.ids[:n]):
        mine = rows[rows["face_id"] == face_id]
        edit = mine["attribute"].iloc[0]
        chosen = []
        for name in names:
            tried = mine.query("attacker == @name and attribute == @edit").sort_values("bound")
            if tried.empty:
                raise SalattackError(f"{name} was not measured; add it to the attackers")
            broken = tried[tried["success"] == 1]
            bound = (tried.tail(1) if broken.empty else broken)["bound"].iloc[0]
            chosen.append(attacks[name, bound])
        one = replace(study, faces=faces.subset(slice(place, place + 1)))
        found.append(example(one, edit, chosen))
    return found
