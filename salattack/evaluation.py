"""Attackers × faces × attributes → one tidy table, a row for each measured picture.

Evaluation streams: a batch of faces is read, attacked, measured, written to the ledger and
forgotten, so that memory does not grow with the sample and a killed run goes on where it was.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from .attacks import LABELS, TABLE, Attack, at_strength
from .errors import SalattackError, one_of
from .generators import ATTRIBUTES
from .ledger import Ledger
from .metrics import as_saved, fake_damage, photo_change
from .study import Study, progress_bar

PRECISIONS = {"uint8": as_saved, "float32": lambda images: images}
# § IV-B's samples and ours: each is the first so many of one seeded order, so that they nest.
PROFILES = {"demo": 20, "tiny": 100, "small": 500, "middle": 1000, "large": 2000, "all": None}
FAILURES = 0.05  # share of unreadable faces above which something else is wrong


def sample_size(profile: str) -> int | None:
    """Return a profile's number of images, None for all there are.

    Raises:
        SalattackError: an unknown profile.
    """
    if profile not in PROFILES:
        raise one_of("profile", profile, PROFILES)
    return PROFILES[profile]


def aims(targets: str, first: int, n: int, names: Sequence[str] = ATTRIBUTES) -> list[list[str]]:
    """Return which edit each of ``n`` faces is attacked on, one list for each round.

    Args:
        targets: "rotate" gives every face one edit, in turn; "all" attacks every face on
            all of them, one after the other; "joint" disrupts it once against them together
            (Ruiz et al., joint class-transferable); an edit's name attacks on that one.
        first: place of the first of these faces in the whole set.
        n: how many faces.
        names: of the generator's edits, `salattack.study.Study.edits`.

    Raises:
        SalattackError: an unknown target.
    """
    if targets == "rotate":
        return [[names[(first + i) % len(names)] for i in range(n)]]
    if targets == "all":
        return [[name] * n for name in names]
    if targets not in ("joint", *names):
        raise one_of("target", targets, ("rotate", "all", "joint", *names))
    return [[targets] * n]


def attackers(
    names: Sequence[str] | None, bound: float, step_size: float, steps: int, seed: int = 0
) -> dict[str, Attack]:
    """Return presets by name, all at one strength; those of Table I when ``names`` is None.

    Raises:
        SalattackError: an unknown attacker, bound < 0, step_size ≤ 0 or steps < 1.
    """
    chosen = TABLE if names is None else names
    return {name: replace(at_strength(name, bound, step_size, steps), seed=seed) for name in chosen}


class Chunk(NamedTuple):
    """Faces that one attacker attacks together; each of a batch's chunks is written whole."""

    attacker: str
    places: tuple[int, ...]  # in the sample
    attributes: tuple[str, ...]  # which edit each face is attacked on


class Unreadable(NamedTuple):
    """A face that could not be read, and why."""

    place: int
    face_id: str
    reason: str


Batch = Sequence[Chunk]
Result = pd.DataFrame | Unreadable
Tick = Callable[[int], object]  # told of gradients as they are done
Engine = Callable[[Study, Mapping[str, Attack], Iterable[Batch], Tick], Iterable[Result]]


def evaluate(
    study: Study,
    attacks: Mapping[str, Attack],
    *,
    targets: str = "rotate",
    batch_size: int = 8,
    ledger: Ledger | None = None,
    engine: Engine | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Attack every face with every attacker, and measure both sides of the trade.

    Args:
        study: faces and models.
        attacks: name → attacker.
        targets: see `aims`.
        batch_size: faces at a time; may exceed the set.
        ledger: where the rows are kept; what it holds is not computed again. None keeps them in
            memory.
        engine: who measures the batches; `measure_here` when None.
        progress: show a bar on stderr: attacker, images done, time left.

    Returns:
        One row per face × attacker × attribute × precision with the columns of `photo_change`
        and `fake_damage`. Precision "uint8" is what a user would save; "float32" is unrounded.
        Faces that cannot be read have no rows; ``ledger.failures()`` names them.

    Raises:
        SalattackError: an unknown target, a ledger of other settings, or more than `FAILURES` of
            the faces cannot be read.
    """
    if batch_size < 1:
        raise SalattackError(f"batch_size must be ≥ 1, got {batch_size}")
    rounds = len(aims(targets, 0, 1, study.edits.names))
    ledger = Ledger() if ledger is None else ledger
    ledger.settle(settings(study, attacks, targets, batch_size))
    n = len(study.faces)
    work = n * rounds * sum(attack.gradients for attack in attacks.values())
    failed = 0
    with progress_bar(work, hidden=not progress) as bar:
        batches = _pending(study, attacks, targets, batch_size, ledger, bar.update)
        for result in (engine or measure_here)(study, attacks, batches, bar.update):
            if isinstance(result, Unreadable):
                ledger.fail(*result)
                failed += 1
                if failed > FAILURES * n:
                    raise SalattackError(
                        f"{failed} of {n} images could not be read, more than {FAILURES:.0%}; "
                        f"the last: {result.reason}. Mend the data and start again"
                    )
            else:
                ledger.append(result)
                name, last = result["attacker"].iloc[0], result["place"].iloc[-1]
                bar.set_description(f"{last + 1}/{n} images · {LABELS.get(name, name)}")
    return ledger.rows(list(attacks), n)


def settings(
    study: Study, attacks: Mapping[str, Attack], targets: str, batch_size: int
) -> dict[str, object]:
    """Return all that a measurement depends on, but for the size of the sample."""
    return study.settings() | {
        "targets": targets,
        "batch_size": batch_size,  # rounding differs with it, and sign() amplifies that
        **{f"{name}.{k}": v for name, a in attacks.items() for k, v in asdict(a).items()},
    }


def _pending(
    study: Study,
    attacks: Mapping[str, Attack],
    targets: str,
    batch_size: int,
    ledger: Ledger,
    tick: Tick,
) -> Iterator[Batch]:
    """Yield what the ledger lacks, batch by batch."""
    ids = study.faces.ids
    for first in range(0, len(ids), batch_size):
        places = range(first, min(first + batch_size, len(ids)))
        chunks = []
        for attributes in aims(targets, first, len(places), study.edits.names):
            for name, attack in attacks.items():
                lacking = ledger.missing(places, ids[first : places.stop], name, attributes)
                tick((len(places) - len(lacking)) * attack.gradients)
                if lacking:
                    chunk = ((places[i], attributes[i]) for i in lacking)
                    chunks.append(Chunk(name, *zip(*chunk, strict=True)))
        if chunks:
            yield chunks


def measure_here(
    study: Study, attacks: Mapping[str, Attack], batches: Iterable[Batch], tick: Tick
) -> Iterator[Result]:
    """Measure batches one after the other, in this process."""
    for chunks in batches:
        yield from measure(study, attacks, chunks, tick)


def measure(
    study: Study, attacks: Mapping[str, Attack], chunks: Batch, tick: Tick
) -> Iterator[Result]:
    """Attack one batch of faces as its chunks say: the rows of each, and unreadable faces."""
    faces = {}
    for place in sorted({place for chunk in chunks for place in chunk.places}):
        try:
            faces[place] = study.faces[place]
        except SalattackError as error:
            yield Unreadable(place, study.faces.ids[place], str(error))
    if not faces:
        return
    batch = torch.stack([face.image for face in faces.values()]).to(study.device)
    index = {place: i for i, place in enumerate(faces)}
    maps = study.saliency_map(batch)
    features = getattr(study.saliency, "feature_maps", None)
    clean: dict[tuple, Tensor] = {}  # g(I_org) is the same for every attacker
    for name, places, attributes in chunks:
        pairs = zip(places, attributes, strict=True)
        aim = tuple((place, attribute) for place, attribute in pairs if place in faces)
        if not aim:
            continue
        chosen = [index[place] for place, _ in aim]
        labels = torch.stack([faces[place].labels for place, _ in aim]).to(study.device)
        target = study.targets(labels, [attribute for _, attribute in aim])
        photos, saliency_map = batch[chosen], maps[chosen]
        perturbed = study.disrupt(photos, target, attacks[name], saliency_map, tick)
        if aim not in clean:
            clean[aim] = study.generate(photos, target)
        parts = []
        for precision, store in PRECISIONS.items():
            after = store(perturbed)  # the photo itself has 8 bits already
            measures = photo_change(photos, after, saliency_map, features)
            broken = study.generate(after, target)
            measures |= fake_damage(clean[aim], broken, photos, features)
            parts.append(
                pd.DataFrame(
                    {
                        "place": [place for place, _ in aim],
                        "face_id": [faces[place].face_id for place, _ in aim],
                        "attacker": name,
                        "attribute": [attribute for _, attribute in aim],
                        "precision": precision,
                    }
                    | {measure: values.cpu().numpy() for measure, values in measures.items()}
                )
            )
        yield pd.concat(parts)
