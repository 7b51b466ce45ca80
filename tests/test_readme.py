"""The documentation says what is so: quotes, links, code and equations."""

import json
import re
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from PIL import Image

from salattack.experiments import evaluation, table_1
from salattack.generators import GENERATORS
from salattack.reporting import tables
from salattack.saliency import SALIENCY_MODELS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
METHOD = (ROOT / "docs" / "method.md").read_text()
CARDS = sorted((ROOT / "salattack" / "resources" / "weights").glob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), *CARDS]
FIGURES = ROOT / "figures"
MANIFEST = json.loads((FIGURES / "manifest.json").read_text())


@pytest.fixture(scope="module")
def refresh():
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import refresh
    finally:
        sys.path.pop(0)
    return refresh


def test_the_example_runs_as_written(tmp_path, monkeypatch):
    (block,) = re.findall(
        r"(?:^    .*\n|^\n)+", METHOD[METHOD.index("    from salattack") :], re.M
    )[:1]
    code = "\n".join(line[4:] for line in block.splitlines())
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    with Image.open(tmp_path / "disrupted.png") as saved:
        assert saved.size == (128, 128)
    assert (names["disrupted"] - names["photo"]).abs().max() <= 0.1 + 1e-6
    assert not torch.equal(names["disrupted"], names["photo"])


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 120
    assert len(README.split()) <= 1200
    assert (FIGURES / "teaser.jpg").stat().st_size <= 400_000


def test_the_readme_tells_of_the_notebooks_and_says_whose_it_is():
    named = set(re.findall(r"notebooks/(\w+)\.ipynb\)", README))
    assert named == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert "not affiliated with the authors" in " ".join(README.splitlines()[:6])


def test_quoted_tables_and_numbers_are_those_of_the_committed_runs(refresh):
    assert {page.name for page in refresh.PAGES} >= {"README.md", "REPRODUCING.md", "findings.md"}
    for page in refresh.PAGES:
        text = page.read_text()
        assert refresh.refreshed(text) == text, f"{page.name}: run make docs-tables"
        opened, closed = (text.count(mark) for mark in ("<!-- table:", "<!-- end -->"))
        assert opened == closed == len(refresh.TABLE.findall(text))
        assert not re.search(r"^<!--=", text, re.M)  # there it would start a block of HTML


def test_a_stale_number_is_noticed(refresh):
    stale = re.sub(r"(<!--=aware_l1-->)[^<]*", r"\g<1>0.99", README)
    assert stale != README
    assert refresh.refreshed(stale) == README


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = [link for link in re.findall(r"\]\(([^)]+)\)", page.read_text()) if "://" not in link]
    assert page.name != "README.md" or len(links) > 20
    assert [
        link for link in links if not (page.parent / link.partition("#")[0]).resolve().exists()
    ] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_promises_what_was_measured_otherwise(page):
    text = page.read_text().lower()
    for words in ("untouched", "nowhere else", "nearly invisible", "keeps its pixels"):
        assert words not in text


def test_the_code_cites_each_equation_where_the_method_page_says():
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| \[([^]]+)\]", METHOD, re.M)
    assert len(rows) == 11
    for cited, path in rows:
        code = (ROOT / path).read_text()
        if "–" not in cited:
            assert re.search(rf"{re.escape(cited)}\b", code), f"{path} does not cite {cited}"
            continue
        kind, first, last = re.fullmatch(r"(\S+) (\d+)–(\d+)", cited).groups()
        found = set()
        for low, word, high in re.findall(
            rf"{re.escape(kind)} (\d+)(?:(–|, | and | to )(\d+))?", code
        ):
            span = range(int(low), int(high or low) + 1)
            found |= {*span} if word in ("–", " to ") else {int(low), int(high or low)}
        assert found >= {*range(int(first), int(last) + 1)}, f"{path} does not cite all of {cited}"


def test_the_committed_figures_are_those_of_the_manifest():
    for name, digest in MANIFEST["outputs"].items():
        assert sha256((FIGURES / name).read_bytes()).hexdigest() == digest, name
    here = {p.name for p in FIGURES.iterdir() if p.is_file()}
    assert here == {*MANIFEST["outputs"], "manifest.json", "README.md"}


def test_the_committed_figures_were_made_with_the_shipped_weights():
    for entry in (GENERATORS["stargan-celeba128-w32"], SALIENCY_MODELS["pfan-light"]):
        assert MANIFEST["weights"][entry.file] == entry.sha256


def test_the_committed_table_follows_from_its_samples():
    import pandas as pd

    rows = pd.read_csv(FIGURES / "table_1_samples.csv")
    assert rows["face_id"].nunique() >= 20
    shown = tables.layout_markdown(table_1.by_sample_size(rows))
    title, table = (FIGURES / "table_1.md").read_text().strip().split("\n\n")
    assert shown == table and title.endswith("Errors in [0, 1].")
    shown = tables.damage_table(table_1.table_1(rows)).to_markdown()
    assert shown == (FIGURES / "table_1_damage.md").read_text().strip().split("\n\n")[1]
    found = table_1.less_change(rows).loc["I-FGSM"]
    n = f"{len(rows[(rows.attacker == 'i-fgsm') & (rows.precision == 'uint8')])}"
    assert (
        found["Saliency-Aware has less L1"] == found["Saliency-Aware has less L2"] == f"{n} of {n}"
    )
    assert set(rows["attacker"]) >= set(evaluation.TABLE)
