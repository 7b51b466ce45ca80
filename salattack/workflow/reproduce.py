"""Run the notebooks by papermill; write what they regenerate, and a manifest of how."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from ..runtime.files import written_whole
from .manifest import manifest
from .notebooks import checkout, find_notebook, run_notebook, unknown_parameters

# The paper's order, then ours; each notebook is run with those of the common settings that it has.
NOTEBOOKS = (
    "framework",
    "attribute_editing",
    "saliency_maps",
    "attack_comparison",
    "attribute_visualization",
    "models",
    "trade_off",
    "ablation",
    "robustness",
    "paper_reading",
    "transfer",
)
DEMO = {  # the shipped default, beyond what CI affords
    "attack_comparison": {"n_images": 20},
    "attribute_visualization": {"n_samples": 20},
    "trade_off": {"n_images": 8, "steps": 10},
    "ablation": {"n_images": 4, "strength": [0.1, 0.02, 10], "steps": [1, 5, 10, 20, 50]},
    "robustness": {"n_images": 8},
    "transfer": {"n_images": 8, "made_from": 4},
}


def reproduce(notebooks: Path, output: Path, executed: Path, settings: Mapping) -> Path:
    """Run every notebook, and write the figures, the table and ``manifest.json``.

    At the end it writes the verdicts on the paper's claims and a static page of it all, and says
    how far the run agrees with the committed figures. The page is in ``report/``: beside
    ``executed`` if ``output`` is the committed figures, else in ``output``.

    Args:
        notebooks: their folder.
        output: where figures and table go.
        executed: where the executed notebooks go.
        settings: common parameters; each notebook gets those that it has.

    Returns:
        The path of the table in Markdown.

    Raises:
        SalattackError: a setting that no notebook has, or a notebook that failed.
    """
    import papermill

    from ..experiments.claims import verify
    from ..experiments.samples import premises
    from ..reporting import page as report  # which strips notebooks as this module does
    from .compare import as_text, compare, other_settings

    sources = {name: find_notebook(name, notebooks) for name in NOTEBOOKS}
    known = {name: set(papermill.inspect_notebook(str(path))) for name, path in sources.items()}
    unknown_parameters(settings, sorted(set().union(*known.values())))
    output, executed = output.resolve(), executed.resolve()
    root = checkout(notebooks.resolve())
    place = output.relative_to(root) if output.is_relative_to(root) else output
    runs, before = {}, _stamps(output)
    for number, (name, source) in enumerate(sources.items(), start=1):
        given = {key: value for key, value in settings.items() if key in known[name]}
        if given.get("profile"):  # such a run is long: it resumes where it was stopped
            given = {"ledger": str(place / "ledger.sqlite")} | given
        parameters = DEMO.get(name, {}) | given | {"output": str(place)}
        say(f"[{number}/{len(sources)}] {name}")
        began = time.perf_counter()
        run_notebook(source, executed / source.name, parameters)
        seconds = time.perf_counter() - began
        say(f"[{number}/{len(sources)}] {name} done in {seconds:.0f} s")
        runs[name] = {"parameters": parameters, "seconds": round(seconds, 1)}
    strength = runs["attack_comparison"]["parameters"]
    claims, given = verify(output), premises(output, strength)
    report.save_claims(claims, output, given)
    # The folder may hold files of other commands and of earlier runs.
    made = [output / name for name, stamp in _stamps(output).items() if before.get(name) != stamp]
    with written_whole(output / "manifest.json") as beside:
        beside.write_text(json.dumps(manifest(runs, made, settings), indent=2) + "\n")
    committed = root / "figures"
    place = (executed.parent if output == committed else output) / "report"
    pages = [executed / source.name for source in sources.values()]
    index = report.write_report(claims, output, pages, place)
    say(f"\n{report.as_text(claims, given)}\nReport: {index}")
    if output == committed:
        why = "this run replaced it"
    elif not (committed / "manifest.json").is_file():
        why = f"{committed} holds no manifest"
    else:
        why = other_settings(output, committed)
    agreement = f"none, because {why}" if why else f"\n{as_text(compare(output, committed))}"
    say(f"\nComparison with the committed figures: {agreement}")
    return output / "table_1.md"


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Return what changes when one of the folder's figures or tables is written, by name."""
    return {
        path.name: (path.stat().st_mtime_ns, path.stat().st_ino)
        for path in sorted(folder.glob("*"))
        if path.suffix in (".png", ".pdf", ".csv", ".md", ".tex")
    }


def say(line: str) -> None:
    """Print a line of progress to stderr at once."""
    print(line, file=sys.stderr, flush=True)
