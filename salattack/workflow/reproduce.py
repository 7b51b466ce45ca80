"""Run the notebooks by papermill; write what they regenerate, and a manifest of how."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from ..errors import SalattackError
from ..runtime.device import pick_device
from ..runtime.files import write_json
from .compare import as_lines, compare, other_settings
from .manifest import manifest
from .notebooks import checkout, find_notebook, known_parameters, run_notebook, unknown_parameters

# The paper's order, then ours; each notebook is run with those of the common settings that it has.
NOTEBOOKS = (
    *("walkthrough", "framework", "attribute_editing", "saliency_maps", "attack_comparison"),
    *("attribute_visualization", "models", "trade_off", "smallest_change"),
    *("ablation", "robustness", "paper_reading", "transfer"),
)

# Runs where a model that it asks for is in the cache.
OPTIONAL = "published_generators"

# These run one after another, with one ledger, because they measure the same attacks in part. Any
# other notebook has a ledger of its own: what it finds there must not depend on who was faster.
SHARING = ("attack_comparison", "trade_off", "smallest_change", "paper_reading")


def share_machine(jobs: int | None = None, device: str = "auto") -> int:
    """Return how many notebooks run at once, and prepare the environment of their kernels.

    Without ``jobs`` it is one per core, or a single one where ``device`` is a GPU. The cores are
    divided among the notebooks by ``OMP_NUM_THREADS``, unless that is set already. With one thread
    each, the tables have the bits of a run with ``jobs=1 OMP_NUM_THREADS=1``. A number below 1, or
    an unknown device, raises a SalattackError.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if jobs is None:
        jobs = (cores or 1) if pick_device(device).type == "cpu" else 1
    if jobs < 1:
        raise SalattackError(f"--jobs must be 1 or more, got {jobs}")
    jobs = min(jobs, 1 + len({*NOTEBOOKS} - {*SHARING}))
    if jobs > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (cores or 1) // jobs)))
        os.environ["TQDM_DISABLE"] = "1"  # bars of several notebooks would overwrite each other
    return jobs


def reproduce(
    notebooks: Path, output: Path, executed: Path, settings: Mapping, jobs: int = 1
) -> str:
    """Run every notebook; write figures, tables, verdicts, a static page and ``manifest.json``.

    A run that was stopped goes on from its ledgers, ``ledger*.sqlite`` in ``output``. The page is
    in ``report/``: beside ``executed`` if ``output`` is the committed figures, else in ``output``.
    Each notebook gets those of the ``settings`` that it has a parameter for.

    Returns:
        What to tell a user: the tally of verdicts, Table I in short, how far the run agrees with
        the committed figures, and the report's path.

    Raises:
        SalattackError: a setting that no notebook has, or a notebook that failed.
    """
    from ..experiments import published
    from ..experiments.claims import verify
    from ..experiments.samples import premises
    from ..reporting import page as report  # which strips notebooks as this module does

    names = (*NOTEBOOKS, *([OPTIONAL] if published.at_hand()[0] else []))
    sources = {name: find_notebook(name, notebooks) for name in names}
    known = {name: known_parameters(path) for name, path in sources.items()}
    unknown_parameters(settings, sorted(set().union(*known.values())))
    output, executed = output.resolve(), executed.resolve()
    root = checkout(notebooks.resolve())
    place = output.relative_to(root) if output.is_relative_to(root) else output
    parameters = {}
    for name in names:
        own = "" if name in SHARING else f"-{name}"
        given = {"ledger": str(place / f"ledger{own}.sqlite"), **settings, "output": str(place)}
        parameters[name] = {key: value for key, value in given.items() if key in known[name]}

    def run(name: str) -> float:
        began = time.perf_counter()
        run_notebook(sources[name], executed / sources[name].name, parameters[name])
        return time.perf_counter() - began

    runs, before, say = {}, _stamps(output), partial(print, file=sys.stderr, flush=True)
    say(f"Running {len(names)} notebooks, {jobs} at once")
    for number, (name, seconds) in enumerate(_all_done(run, jobs, names), start=1):
        say(f"[{number}/{len(names)}] {name} done in {seconds:.0f} s")
        runs[name] = {"parameters": known[name] | parameters[name], "seconds": round(seconds, 1)}
    strength = runs["attack_comparison"]["parameters"]
    claims, given = verify(output), premises(output, strength)
    report.save_claims(claims, output, given)
    # The folder may hold files of other commands and of earlier runs.
    made = [output / name for name, stamp in _stamps(output).items() if before.get(name) != stamp]
    write_json(output / "manifest.json", manifest(runs, made, settings, jobs))
    committed = root / "figures"
    place = (executed.parent if output == committed else output) / "report"
    index = report.write_report(
        claims, output, [executed / p.name for p in sources.values()], place
    )
    table = report.overview(output).to_markdown(disable_numparse=True)
    said = _agreement(output, committed)
    return f"{report.tally(claims)}\n\n{table}\n\nCommitted figures: {said}\nReport: {index}"


def _agreement(output: Path, committed: Path) -> str:
    """Return in a line how far a run agrees with the committed figures."""
    if output == committed:
        return "replaced by this run"
    if not (committed / "manifest.json").is_file():
        return f"not compared, because {committed} holds no manifest"
    if why := other_settings(output, committed):
        return f"not compared, because {why}"
    return as_lines(compare(output, committed)).splitlines()[-1]


def _all_done(
    run: Callable[[str], float], jobs: int, names: Sequence[str] = NOTEBOOKS
) -> Iterable[tuple[str, float]]:
    """Run notebooks, `SHARING` one by one; yield each with its seconds, in the order of ``names``.

    The first one that fails ends it. Kernels end with this process, however it ends.
    """
    apart = [SHARING, *((name,) for name in names if name not in SHARING)]
    chains, ended, done = iter([names] if jobs == 1 else apart), SimpleQueue(), {}

    def work() -> None:
        try:
            for name in (name for chain in chains for name in chain):
                ended.put((name, run(name)))
        except Exception as error:
            ended.put(("", error))

    for _ in range(jobs):
        Thread(target=work, daemon=True).start()
    for name in names:
        while name not in done:
            finished, seconds = ended.get()
            if isinstance(seconds, Exception):
                raise seconds
            done[finished] = seconds
        yield name, done[name]


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Return what changes when one of the folder's figures or tables is written, by name."""
    return {
        path.name: (path.stat().st_mtime_ns, path.stat().st_ino)
        for path in sorted(folder.glob("*"))
        if path.suffix in (".png", ".jpg", ".pdf", ".csv", ".md", ".tex")
    }
