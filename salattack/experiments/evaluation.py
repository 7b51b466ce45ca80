"""Attackers × faces × attributes → one tidy table, a row for each measured picture.

Evaluation streams: a batch of faces is read, attacked, measured, written to the ledger and
forgotten. Memory does not grow with the pictures, and a killed run resumes where it was.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from ..attacks import Attack
from ..errors import SalattackError, one_of
from ..faces.celeba import STARGAN_TEST
from ..faces.sets import Face
from ..generators import ATTRIBUTES
from ..images import as_saved, to_uint8
from ..metrics import fake_damage, photo_change
from ..presets import TABLE, at_strength, label_of
from ..runtime.parallel import map_on_ray
from ..runtime.progress import progress_bar
from .ledger import KEYS, Ledger
from .study import Study

PRECISIONS = {"uint8": as_saved, "float32": lambda images: images}

# § IV-B's samples and ours: each is the first so many of one seeded order, so that they nest.
PROFILES = {"demo": 20, "tiny": 100, "small": 500, "middle": 1000, "large": 2000, "all": None}

# Divides every profile, so that a larger profile continues a smaller one's batches.
BATCH_SIZE = 10
FAILURES = 0.05  # share of unreadable faces above which something else is wrong


def sample_size(profile: str) -> int | None:
    """Return a profile's number of images, None for all there are.

    Raises:
        SalattackError: an unknown profile.
    """
    if profile not in PROFILES:
        raise one_of("profile", profile, PROFILES)
    return PROFILES[profile]


def samples(n: int) -> dict[str, int]:
    """Return the size of each sample of § IV-B that the first ``n`` images of a set hold.

    "large" is 2,000, or the 1,999 that StarGAN's test split has. Where ``n`` is none of these
    sizes, "all" is added.
    """
    sizes = {name: size for name, size in PROFILES.items() if name != "demo" and size}
    if n == STARGAN_TEST:
        sizes["large"] = n
    held = {name: size for name, size in sizes.items() if size <= n}
    return held if n in held.values() else held | {"all": n}


def aims(targets: str, first: int, n: int, names: Sequence[str] = ATTRIBUTES) -> list[list[str]]:
    """Return which edit each of ``n`` faces is attacked on, one list for each round.

    Args:
        targets: "rotate" gives every face one edit, in turn; "all" attacks every face on
            all of them, one after the other; "joint" disrupts it once against them together
            (Ruiz et al., joint class-transferable); an edit's name attacks on that one.
        first: place of the first of these faces in the whole set.
        n: how many faces.
        names: of the generator's edits, `salattack.experiments.study.Study.edits`.

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
    keys: tuple[str, ...]  # what the ledger knows each measurement by


class Batch(NamedTuple):
    """Faces by their place in the sample, and what is to be measured of them."""

    faces: dict[int, Face]
    chunks: tuple[Chunk, ...]


class Result(NamedTuple):
    """A chunk and its rows for the ledger: key, precision and the measures."""

    chunk: Chunk
    rows: pd.DataFrame


Tick = Callable[[int], object]  # called with the number of gradients just computed
Engine = Callable[[Study, Mapping[str, Attack], Iterable[Batch], Tick], Iterable[Result]]


def evaluate(
    study: Study,
    attacks: Mapping[str, Attack],
    *,
    targets: str = "rotate",
    batch_size: int = BATCH_SIZE,
    ledger: Ledger | None = None,
    engine: Engine | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Attack every face with every attacker, and measure both sides of the trade.

    The ledger knows a measurement by its content: the face's 8-bit pixels and labels, the edit,
    the attack's values, and `Study.settings` (models, image size, arithmetic, device). Whatever
    has the same content is measured once, under any name.

    A ``shared`` attack gives one perturbation for a whole batch, so its measurements depend on
    every face and edit of that batch. A batch that has grown is therefore attacked again as a
    whole.

    Rounding depends on which faces are attacked together, and the sign of the gradient amplifies
    it. A grown sample has the same bits as a fresh one where the smaller sample is a multiple of
    ``batch_size``, as every profile is of the default. Elsewhere the faces of the last short
    batch, and those that fill it up, differ by this rounding; so does a photo that was repaired.

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
        Faces that cannot be read have no rows; ``ledger.failures(study.faces.sources)`` has them.

    Raises:
        SalattackError: an unknown target, or more than `FAILURES` of the faces cannot be read.
    """
    if batch_size < 1:
        raise SalattackError(f"batch_size must be ≥ 1, got {batch_size}")
    rounds = len(aims(targets, 0, 1, study.edits.names))
    ledger = Ledger() if ledger is None else ledger
    n = len(study.faces)
    work = n * rounds * sum(attack.gradients for attack in attacks.values())
    wanted: list[tuple] = []
    with progress_bar(work, hidden=not progress) as bar:
        batches = _pending(study, attacks, targets, batch_size, ledger, bar.update, wanted)
        for chunk, rows in (engine or measure_here)(study, attacks, batches, bar.update):
            ledger.append(rows)
            name, last = label_of(chunk.attacker), chunk.places[-1]
            bar.set_description(f"{last + 1}/{n} images · {name}")
    names = ["face_id", "place", "attacker", "attribute", "key"]
    table = pd.DataFrame(wanted, columns=names)
    rank = table["attacker"].map({name: i for i, name in enumerate(attacks)})
    table = table.assign(rank=rank).sort_values(["place", "rank"], kind="stable")
    rows = table.merge(ledger.rows(table["key"].unique()), on="key")
    return rows.drop(columns=["key", "rank"])


def settings(
    study: Study, attacks: Mapping[str, Attack], targets: str, batch_size: int
) -> dict[str, object]:
    """Return all that a measurement depends on, but for the faces, as plain values."""
    return study.settings() | {
        "targets": targets,
        "batch_size": batch_size,
        **{f"{name}.{k}": v for name, a in attacks.items() for k, v in asdict(a).items()},
    }


def _pending(
    study: Study,
    attacks: Mapping[str, Attack],
    targets: str,
    batch_size: int,
    ledger: Ledger,
    tick: Tick,
    wanted: list[tuple],
) -> Iterator[Batch]:
    """Yield what the ledger lacks, batch by batch; add the key of every sample to ``wanted``."""
    models = study.settings()
    given: set[str] = set()  # to the engine; an equal sample waits for the first one's rows
    ids, sources, failed = study.faces.ids, study.faces.sources, 0
    ledger.forgive(sources)
    for first in range(0, len(ids), batch_size):
        places = range(first, min(first + batch_size, len(ids)))
        faces: dict[int, Face] = {}
        for place in places:
            try:
                faces[place] = study.faces[place]
            except SalattackError as error:
                ledger.fail(sources[place], ids[place], str(error))
                failed += 1
                if failed > FAILURES * len(ids):
                    raise SalattackError(
                        f"{failed} of {len(ids)} images could not be read, more than "
                        f"{FAILURES:.0%}; the last: {error}. Fix the data and start again"
                    ) from error
        contents = {place: _content(face) for place, face in faces.items()}
        chunks = []
        for attributes in aims(targets, first, len(places), study.edits.names):
            aim = [(place, attributes[place - first]) for place in faces]
            whole = [(contents[place], attribute) for place, attribute in aim]
            for name, attack in attacks.items():
                made_of = [models, asdict(attack), whole if attack.shared else None]
                keys = [_checksum([*made_of, *pair]) for pair in whole]
                pairs = zip(aim, keys, strict=True)
                wanted += [(ids[place], place, name, edit, key) for (place, edit), key in pairs]
                lacking = [i for i in ledger.missing(keys) if keys[i] not in given]
                if lacking and attack.shared:
                    lacking = range(len(keys))
                else:  # equal faces of one batch are attacked once
                    lacking = sorted({keys[i]: i for i in reversed(lacking)}.values())
                tick((len(places) - len(lacking)) * attack.gradients)
                if lacking:
                    chosen = [(*aim[i], keys[i]) for i in lacking]
                    chunks.append(Chunk(name, *zip(*chosen, strict=True)))
                    given.update(keys)
        if chunks:
            yield Batch(faces, tuple(chunks))


def _content(face: Face) -> str:
    digest = hashlib.sha256(json.dumps(face.labels.tolist()).encode())
    digest.update(to_uint8(face.image).contiguous().numpy().tobytes())
    return digest.hexdigest()


def _checksum(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def measure_here(
    study: Study, attacks: Mapping[str, Attack], batches: Iterable[Batch], tick: Tick
) -> Iterator[Result]:
    """Measure batches one after the other, in this process."""
    for batch in batches:
        yield from measure(study, attacks, batch, tick)


def measure(
    study: Study, attacks: Mapping[str, Attack], batch: Batch, tick: Tick
) -> Iterator[Result]:
    """Attack one batch of faces as its chunks say, and measure each chunk."""
    images = torch.stack([face.image for face in batch.faces.values()]).to(study.device)
    labels = torch.stack([face.labels for face in batch.faces.values()]).to(study.device)
    index = {place: i for i, place in enumerate(batch.faces)}
    maps = study.saliency_map(images)
    features = getattr(study.saliency, "feature_maps", None)
    clean: dict[tuple, Tensor] = {}  # g(I_org) is the same for every attacker
    for chunk in batch.chunks:
        aim = chunk.places, chunk.attributes
        chosen = [index[place] for place in chunk.places]
        target = study.targets(labels[chosen], chunk.attributes)
        photos, saliency_map = images[chosen], maps[chosen]
        perturbed = study.disrupt(photos, target, attacks[chunk.attacker], saliency_map, tick)
        if aim not in clean:
            clean[aim] = study.generate(photos, target)
        parts = []
        for precision, store in PRECISIONS.items():
            after = store(perturbed)  # the photo itself has 8 bits already
            measures = photo_change(photos, after, saliency_map, features)
            broken = study.generate(after, target)
            measures |= fake_damage(clean[aim], broken, photos, features)
            head = dict(zip(KEYS, (chunk.keys, precision), strict=True))
            values = {measure: values.cpu().numpy() for measure, values in measures.items()}
            parts.append(pd.DataFrame(head | values))
        yield Result(chunk, pd.concat(parts))


def measure_on_ray(
    study: Study,
    attacks: Mapping[str, Attack],
    batches: Iterable[Batch],
    tick: Tick,
    *,
    open_study: Callable[[], Study],
    workers: int | None = None,
) -> Iterator[Result]:
    """Measure batches on a Ray cluster: the engine of `salattack.experiments.evaluation.evaluate`.

    Batches carry their faces. Every worker opens the study itself, so the files that
    ``open_study`` reads must be there on every node.

    Args:
        study: as here; its device says whether workers need a GPU.
        attacks: name → attacker.
        batches: what is to be measured.
        tick: called with the number of gradients as batches come back.
        open_study: opens the same study in a worker.
        workers: see `map_on_ray`.
    """
    gpus = 1 if study.device.type == "cuda" else 0
    make = partial(_measurer, open_study, dict(attacks))
    for results, gradients in map_on_ray(make, batches, workers=workers, gpus=gpus):
        tick(gradients)
        yield from results


def _measurer(
    open_study: Callable[[], Study], attacks: Mapping[str, Attack]
) -> Callable[[Batch], tuple[list[Result], int]]:
    study = open_study()

    def work(batch: Batch) -> tuple[list[Result], int]:
        done: list[int] = []
        results = list(measure(study, attacks, batch, done.append))
        return results, sum(done)

    return work
