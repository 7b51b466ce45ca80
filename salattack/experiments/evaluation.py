"""Attackers × faces × edits → one table, a row for each measured picture.

Evaluation streams: a batch of faces is read, attacked, measured, written to the ledger and
forgotten. Memory does not grow with the number of pictures, and a killed run resumes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import product
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from ..attacks import Attack, Tick
from ..errors import SalattackError, one_of
from ..faces.celeba import STARGAN_TEST
from ..faces.sets import Face
from ..generators import ATTRIBUTES
from ..images import as_saved
from ..metrics import fake_damage, photo_change
from ..presets import TABLE, at_strength, label_of
from ..runtime.parallel import map_on_ray
from ..runtime.progress import progress_bar
from .ledger import KEYS, Ledger, checksum, content
from .study import Study

PRECISIONS = {"uint8": as_saved, "float32": lambda images: images}

# § IV-B's samples and ours: each is the first so many of one seeded order, so that they nest.
PROFILES = {"demo": 20, "tiny": 100, "small": 500, "middle": 1000, "large": 2000, "all": None}

# Divides every profile, so that a larger profile continues a smaller one's batches.
BATCH_SIZE = 10
FAILURES = 0.05  # share of unreadable faces above which something else is wrong


def sample_size(profile: str) -> int | None:
    """Return a profile's number of images, None for all; `SalattackError` for an unknown one."""
    if profile not in PROFILES:
        raise one_of("profile", profile, PROFILES)
    return PROFILES[profile]


def samples(n: int) -> dict[str, int]:
    """Return the size of each sample of § IV-B that the first ``n`` images of a set hold.

    "large" is 2,000, or the 1,999 that StarGAN's test split has. Where ``n`` is none of these
    sizes, "all" is added.
    """
    sizes = {name: PROFILES[name] for name in ("tiny", "small", "middle")}
    sizes["large"] = STARGAN_TEST if n == STARGAN_TEST else PROFILES["large"]
    held = {name: size for name, size in sizes.items() if size <= n}
    return held if n in held.values() else held | {"all": n}


def aims(targets: str, first: int, n: int, names: Sequence[str] = ATTRIBUTES) -> list[list[str]]:
    """Return which edit each of ``n`` faces, from place ``first`` on, is attacked on, by round.

    ``targets`` "rotate" gives every face one of the generator's edits, in turn; "all" attacks every
    face on each of them; "joint" once against all together (Ruiz et al., joint
    class-transferable); an edit's name on that one.

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


def at_bounds(
    names: Iterable[str], strengths: Iterable[tuple[float, float, int]], seed: int = 0
) -> dict[tuple[str, float], Attack]:
    """Return presets by name and bound, at each strength (bound, step size, steps)."""
    pairs = product(names, strengths)
    return {(n, how[0]): replace(at_strength(n, *how), seed=seed) for n, how in pairs}


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


Result = tuple[Chunk, pd.DataFrame]  # with its rows for the ledger: `KEYS` and the measures
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
    """Attack every face with every attacker; measure the change of the photo and the damage.

    What the ledger holds is not computed again; None keeps the rows in memory. It knows a
    measurement by its content: the face's 8-bit pixels and labels, the edit, the attack's values,
    and `Study.settings`. Equal content is measured once, under any name. A ``shared`` attack
    depends on its whole batch, which is attacked again when it has grown.

    Rounding depends on which faces are attacked together, and the sign of the gradient amplifies
    it. A grown sample has the same bits as a fresh one where the smaller sample is a multiple of
    ``batch_size``, as every profile is of the default, and where one size filled the ledger.

    ``targets`` are those of `aims`, and the ``engine`` is `measure_here` when None.

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
            bar.set_description(f"{chunk.places[-1] + 1}/{n} images · {label_of(chunk.attacker)}")
    order = list(attacks)
    wanted.sort(key=lambda sample: (sample[1], order.index(sample[2])))
    table = pd.DataFrame(wanted, columns=["face_id", "place", "attacker", "attribute", "key"])
    return table.merge(ledger.rows(table["key"].unique()), on="key").drop(columns="key")


def evaluate_variants(
    study: Study,
    variants: Mapping[tuple, Attack],
    columns: Sequence[str],
    precisions: Sequence[str] = ("uint8",),
    **options: object,
) -> pd.DataFrame:
    """Run `evaluate` with ``options`` on `Faces.readable`, for attacks told apart by ``columns``.

    A variant's key holds a value for each column, and these replace `evaluate`'s "attacker" in the
    rows. Only rows of ``precisions`` are returned. Equal attackers run once.
    """
    names = {" · ".join(map(str, values)): values for values in variants}
    attacks = {name: variants[values] for name, values in names.items()}
    rows = evaluate(study.readable(), attacks, **options)
    rows = rows[rows["precision"].isin(precisions)].reset_index(drop=True)
    table = pd.DataFrame(names.values(), index=list(names), columns=list(columns))
    chosen = table.loc[rows["attacker"]].set_axis(rows.index)
    return rows.drop(columns="attacker").join(chosen)


def settings(
    study: Study, attacks: Mapping[str, Attack], targets: str, batch_size: int
) -> dict[str, object]:
    """Return all that a run depends on besides the faces, as plain values."""
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
    for places, faces in _batches(study, batch_size, ledger):
        contents = [content(face) for face in faces.values()]
        chunks = []
        for attributes in aims(targets, places[0], len(places), study.edits.names):
            edits = [attributes[place - places[0]] for place in faces]
            whole = list(zip(contents, edits, strict=True))
            for name, attack in attacks.items():
                made_of = [models, asdict(attack), whole if attack.shared else None]
                keys = [checksum([*made_of, *pair]) for pair in whole]
                aim = list(zip(faces, edits, keys, strict=True))
                wanted += [(study.faces.ids[place], place, name, *rest) for place, *rest in aim]
                lacking = ledger.missing(keys) - given
                # Equal faces are attacked once.
                first_of = {one[-1]: one for one in reversed(aim) if one[-1] in lacking}
                chosen = aim if first_of and attack.shared else sorted(first_of.values())
                tick((len(places) - len(chosen)) * attack.gradients)
                if chosen:
                    chunks.append(Chunk(name, *zip(*chosen, strict=True)))
                    given.update(keys)
        if chunks:
            yield Batch(faces, tuple(chunks))


def _batches(
    study: Study, batch_size: int, ledger: Ledger
) -> Iterator[tuple[range, dict[int, Face]]]:
    """Yield places of the sample and the faces there that can be read; the ledger notes others."""
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
        yield places, faces


def measure_here(
    study: Study, attacks: Mapping[str, Attack], batches: Iterable[Batch], tick: Tick
) -> Iterator[Result]:
    """Attack batches of faces as their chunks say, one after the other, and measure each chunk."""
    features = getattr(study.saliency, "feature_maps", None)
    for batch in batches:
        images = torch.stack([face.image for face in batch.faces.values()]).to(study.device)
        labels = torch.stack([face.labels for face in batch.faces.values()]).to(study.device)
        index = {place: i for i, place in enumerate(batch.faces)}
        maps = study.saliency_map(images)
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
                parts.append(table_of(head, measures))
            yield chunk, pd.concat(parts)


def table_of(head: Mapping[str, object], measures: Mapping[str, Tensor]) -> pd.DataFrame:
    """Return a row per face of what is known of it and (N,) measures."""
    return pd.DataFrame({**head, **{name: m.cpu().numpy() for name, m in measures.items()}})


def measure_on_ray(
    study: Study,
    attacks: Mapping[str, Attack],
    batches: Iterable[Batch],
    tick: Tick,
    *,
    open_study: Callable[[], Study],
    workers: int | None = None,
) -> Iterator[Result]:
    """Measure batches on a Ray cluster, as an engine of `evaluate`.

    Batches carry their faces. Every worker opens the study itself by ``open_study``, so the files
    that it reads must be on every node. Workers hold a GPU each if the study is on one.
    """

    def make() -> Callable[[Batch], tuple[list[Result], int]]:
        there = open_study()

        def work(batch: Batch) -> tuple[list[Result], int]:
            done: list[int] = []
            return list(measure_here(there, attacks, [batch], done.append)), sum(done)

        return work

    gpus = 1 if study.device.type == "cuda" else 0
    for results, gradients in map_on_ray(make, batches, workers=workers, gpus=gpus):
        tick(gradients)
        yield from results
