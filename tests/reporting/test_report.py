"""The static page: whole, readable without a network, and silent about the machine."""

import json
import os
import re
import shutil
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from time import sleep

import pandas as pd
import pytest

from salattack.errors import SalattackError
from salattack.experiments import claims as verify
from salattack.experiments.samples import TABLE_1, premises
from salattack.reporting import page as report
from salattack.reporting.captions import CAPTIONS, FIGURE_SUFFIXES, gallery
from salattack.workflow import reproduce

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "figures"
NOTEBOOKS = [ROOT / "notebooks" / f"{name}.ipynb" for name in sorted(reproduce.NOTEBOOKS)]
DOI = "https://doi.org/10.1109/TCSS.2023.3271121"


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of styles."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.words, self._style = [], [], False
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._style = tag == "style"

    def handle_endtag(self, tag):
        self._style = False

    def handle_data(self, data):
        if not self._style:
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def claims():
    return verify.verify(FIGURES)


@pytest.fixture(scope="module")
def place(claims, tmp_path_factory):
    place = tmp_path_factory.mktemp("run") / "report"
    index = report.write_report(claims, FIGURES, NOTEBOOKS, place)
    assert index == place / "index.html"
    return place


@pytest.fixture(scope="module")
def pages(place):
    return {path.name: Page(path) for path in sorted(place.iterdir())}


def test_one_index_and_a_page_for_each_notebook(pages):
    assert set(pages) == {"index.html", *(f"{path.stem}.html" for path in NOTEBOOKS)}


def test_the_index_holds_claims_table_and_figures(pages, claims):
    index = pages["index.html"]
    for row in claims.itertuples():
        for cell in (row.claim, row.source, row.printed, row.measured, row.because):
            assert " ".join(cell.split()) in index.text
        assert f"{report.MARKS[row.verdict]} {row.verdict}" in index.text
    assert report.tally(claims) in index.text and premises(FIGURES) in index.text
    table = pd.read_csv(FIGURES / "table_1.csv", index_col="attacker")
    for value in table["ssim"]:
        assert f"{value:.3f}" in index.text
    assert index.text.index("independent reproduction") < index.text.index("Claim by claim")
    figures = [path for path in FIGURES.rglob("*") if path.suffix in FIGURE_SUFFIXES]
    images = index.all("img")
    assert len(images) == len(figures) > 4
    names = {path.relative_to(FIGURES).as_posix() for path in figures}
    order = [name for name in CAPTIONS if name in names]
    assert order[0] == "teaser.jpg" and len(order) == len(figures)
    for image, name in zip(images, order, strict=True):
        assert image["src"].startswith("data:image/webp;base64,") and len(image["src"]) > 10_000
        assert CAPTIONS[name].title in index.text
        assert image["alt"] == CAPTIONS[name].description
        assert f"salattack run {CAPTIONS[name].notebook}" in index.text
    assert index.text.index("independent reproduction") < index.text.index(report.tally(claims))


def test_the_whole_report_is_small_and_has_no_raw_formulas(pages, place):
    assert sum(path.stat().st_size for path in place.iterdir()) < 4.5e6
    assert (place / "index.html").stat().st_size < 2e6
    formulas = pages["saliency_maps.html"].all("math")
    assert {formula["display"] for formula in formulas} == {"block", "inline"}
    assert pages["robustness.html"].all("math")
    assert not [name for name, page in pages.items() if re.search(r"\$\S", page.text)]


def test_the_second_line_says_whose_numbers_they_are(claims, tmp_path):
    assert (
        "No number is from the published StarGAN"
        not in Page(report.write_report(claims, copied(tmp_path), [], tmp_path / "report")).text
    )
    manifest = json.loads((FIGURES / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    page = Page(report.write_report(claims, tmp_path, [], tmp_path / "report"))
    assert "No number is from the published StarGAN or PFAN" in page.text
    assert manifest["hardware"]["processor"] in page.text and manifest["finished"] in page.text
    manifest["weights"]["200000-G.ckpt"] = "0" * 64
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    page = Page(report.write_report(claims, tmp_path, [], tmp_path / "report"))
    assert "No number is from the published" not in page.text


def copied(place):
    shutil.copy(FIGURES / TABLE_1, place)
    return place


def test_every_link_leads_somewhere(pages, place):
    links = [link["href"] for link in pages["index.html"].all("a")]
    assert links[0] == DOI
    assert set(links[1:]) == {name for name in pages if name != "index.html"}
    for name, page in pages.items():
        if name != "index.html":
            assert page.all("a")[0]["href"] == "index.html"
            for link in page.all("a"):
                href = link["href"].partition("#")[0]
                assert "://" in href or not href or (place / href).is_file()


def test_nothing_is_fetched(pages, place):
    for name, page in pages.items():
        assert not [t for t, _ in page.tags if t in ("script", "link", "iframe", "object", "embed")]
        for tag, attributes in page.tags:
            for key in ("src", "srcset", "data", "poster", "action"):
                assert attributes.get(key, "data:").startswith("data:"), (name, tag)
            if name == "index.html":
                assert "http" not in attributes.get("href", "").replace(DOI, "")
        styles = re.findall(r"<style.*?</style>", (place / name).read_text(), re.S)
        assert not re.search(r"url\(|@import", " ".join(styles))


def test_pictures_are_described_and_pages_are_pages(pages):
    for page in pages.values():
        assert all(image.get("alt") for image in page.all("img"))
        assert page.all("html") == [{"lang": "en"}] and len(page.all("title")) == 1
        assert len(page.all("h1")) == 1
    assert pages["framework.html"].all("img")


def test_all_pages_together_are_small(place):
    assert sum(path.stat().st_size for path in place.iterdir()) <= 3_000_000


def test_no_machine_in_it(place):
    for path in place.iterdir():
        text = re.sub(r'"data:image/\w+;base64,[^"]*"', "", path.read_text(encoding="utf-8"))
        assert not re.search(r"/(home|root|tmp|work|Users)/|site-packages|papermill", text), path
        assert str(ROOT) not in text


def test_notebooks_show_text_code_and_outputs(pages):
    page = pages["attack_comparison.html"]
    assert "Regenerates Table I" in page.text and "open_study (" in page.text
    assert "Spread-Spectrum" in page.text and page.all("table")


def test_other_figures_no_notebooks_and_marks_of_html(tmp_path, claims):
    shutil.copy(FIGURES / TABLE_1, tmp_path)
    strange = claims.assign(because="<script>alert(1)</script> & so on")
    page = Page(report.write_report(strange, tmp_path, [], tmp_path / "report"))
    assert not page.all("script") and "<script>alert(1)</script> & so on" in page.text
    assert "This run wrote no figures." in page.text
    assert "None of this run’s notebooks is there." in page.text
    assert "strength not recorded" in page.text and "Made with salattack 0." in page.text
    shutil.copy(FIGURES / "models_saliency.jpg", tmp_path / "my_own_figure.png")
    page = Page(report.write_report(claims, tmp_path, [], tmp_path / "report"))
    assert "My own figure" in page.text and page.all("img")[0]["alt"] == "My own figure"


def test_claims_as_files(tmp_path, claims):
    csv, markdown = report.save_claims(claims, tmp_path, "What is given.")
    pd.testing.assert_frame_equal(pd.read_csv(csv, dtype=str, keep_default_na=False), claims)
    text = markdown.read_text(encoding="utf-8")
    assert text.startswith(f"{report.tally(claims)}\n\nWhat is given.\n\n## What ")
    assert text.count("## ") == claims["verdict"].nunique()
    assert all(f"| {claim} " in text for claim in claims["claim"])
    (tmp_path / "file").write_text("")
    shutil.copy(FIGURES / TABLE_1, tmp_path)
    with pytest.raises(SalattackError, match="choose another path"):
        report.save_claims(claims, tmp_path / "file", "")
    with pytest.raises(SalattackError, match="choose another path"):
        report.write_report(claims, tmp_path, [], tmp_path / "file")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout whose notebooks write the committed figures to their output when they are run."""
    (tmp_path / "pyproject.toml").write_text("")
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")

    def run(source, target, parameters):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
        output = tmp_path / parameters["output"]
        output.mkdir(exist_ok=True)
        for path in FIGURES.glob("*.*"):
            if path.name != "manifest.json":
                shutil.copyfile(path, output / path.name)

    monkeypatch.setattr(reproduce, "run_notebook", run)
    return tmp_path


def repeat(checkout, settings=None, output="results"):
    """Reproduce in that checkout; return the output folder and what is said at the end."""
    folder, executed = checkout / output, checkout / "results" / "notebooks"
    said = reproduce.reproduce(checkout / "notebooks", folder, executed, settings or {})
    return folder, said


def test_a_run_certifies_only_what_it_wrote(checkout):
    results = checkout / "results"
    results.mkdir()
    (results / "benchmark.csv").write_text("of another command")
    shutil.copy(FIGURES / "transfer.png", results / "of_an_earlier_run.png")
    repeat(checkout)
    outputs = json.loads((results / "manifest.json").read_text())["outputs"]
    committed = {path.name for path in FIGURES.glob("*.*")}
    assert set(outputs) == committed - {"manifest.json"}
    index = Page(results / "report" / "index.html")
    assert len(index.all("img")) == sum(Path(name).suffix in FIGURE_SUFFIXES for name in committed)
    assert "Of an earlier run" not in index.text


def test_a_parameter_at_its_notebooks_default_changes_nothing(checkout):
    results, _ = repeat(checkout, {"profile": None})
    assert len(json.loads((results / "manifest.json").read_text())["inputs"]) == 20


def test_a_run_with_the_committed_settings_is_compared(checkout):
    shutil.copytree(FIGURES, checkout / "figures")
    before = {path: path.read_bytes() for path in (checkout / "figures").glob("*.*")}
    _, said = repeat(checkout)
    kinds = (*FIGURE_SUFFIXES, ".csv")
    n = sum(path.suffix in kinds for path in FIGURES.glob("*")) - 1  # not the claims
    assert f"{n} of {n} outputs agree with the reference within rounding" in said
    assert before == {path: path.read_bytes() for path in (checkout / "figures").glob("*.*")}
    _, said = repeat(checkout, {"steps": 9})
    assert "not compared, because the runs have different settings (ablation.steps: 9 here" in said


@pytest.mark.parametrize("committed", [True, False])
def test_reproduce_ends_with_verdicts_and_report(checkout, capsys, committed):
    tmp_path, output = checkout, checkout / ("figures" if committed else "mine")
    executed = tmp_path / "results" / "notebooks"
    done = reproduce.reproduce(tmp_path / "notebooks", output, executed, {"bound": 0.1})
    index = (tmp_path / "results" if committed else output) / "report" / "index.html"
    for name in reproduce.NOTEBOOKS:
        assert (index.parent / f"{name}.html").is_file()
    assert "bound 0.1 and step 0.01 in [-1, 1], 10 steps" in Page(index).text
    why = "replaced by this run" if committed else "holds no manifest"
    assert f"{why}\nReport: {index}" in done
    assert len(done.splitlines()) < 15 and max(map(len, done.splitlines())) < 160
    assert done.count("\n| ") == 6 and done.startswith(f"{len(verify.CLAIMS)} claims: ")
    said = capsys.readouterr().err.splitlines()
    numbers = [f"[{i}/{len(reproduce.NOTEBOOKS)}]" for i in range(1, len(said))]
    assert [line.split()[0] for line in said] == ["Running", *numbers]
    outputs = json.loads((output / "manifest.json").read_text())["outputs"]
    for name in ("claims.csv", "claims.md"):
        assert outputs[name] == sha256((output / name).read_bytes()).hexdigest()
    claims = pd.read_csv(output / "claims.csv")
    assert len(claims) == len(verify.CLAIMS)


def test_notebooks_that_run_at_once_end_in_order(monkeypatch):
    running, most, ran = [], [], []

    def run(name):
        running.append(name)
        most.append(len(running))
        sleep(0.05 if name in reproduce.SHARING else 0.01)
        running.remove(name)
        ran.append(name)
        return 1.0

    assert [name for name, _ in reproduce._all_done(run, 3)] == list(reproduce.NOTEBOOKS)
    assert max(most) == 3
    assert [name for name in ran if name in reproduce.SHARING] == list(reproduce.SHARING)

    def fail(name):
        if name == "models":
            raise SalattackError("models: broken")
        return 1.0

    with pytest.raises(SalattackError, match="models: broken"):
        list(reproduce._all_done(fail, 2))


def test_notebooks_that_run_at_once_share_no_ledger(checkout, monkeypatch):
    given = {}
    original = reproduce.run_notebook
    monkeypatch.setattr(
        reproduce,
        "run_notebook",
        lambda source, target, parameters: (
            given.update({source.stem: parameters.get("ledger")}),
            original(source, target, parameters),
        ),
    )
    repeat(checkout)
    kept = {name: ledger for name, ledger in given.items() if ledger}
    common = {name for name, ledger in kept.items() if ledger == "results/ledger.sqlite"}
    assert {"attack_comparison", "trade_off"} <= common <= set(reproduce.SHARING)
    assert kept["ablation"] == "results/ledger-ablation.sqlite"


def test_the_cores_are_divided_among_the_notebooks(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    for name in ("OMP_NUM_THREADS", "TQDM_DISABLE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    assert reproduce.share_machine(1, "cpu") == 1 and "OMP_NUM_THREADS" not in os.environ
    assert reproduce.share_machine(4, "cpu") == 4
    assert os.environ["OMP_NUM_THREADS"] == "2" and os.environ["TQDM_DISABLE"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert reproduce.share_machine(None, "cpu") == 8
    assert os.environ["OMP_NUM_THREADS"] == "1"
    with pytest.raises(SalattackError, match="jobs must be 1 or more"):
        reproduce.share_machine(0)


def test_the_gallery_is_the_captions_and_every_figure_has_one():
    assert (FIGURES / "README.md").read_text(encoding="utf-8") == gallery(), "run `make gallery`"
    assert {path.name for path in FIGURES.glob("*") if path.suffix in FIGURE_SUFFIXES} <= set(
        CAPTIONS
    )
    assert {caption.notebook for caption in CAPTIONS.values()} <= {
        *reproduce.NOTEBOOKS,
        reproduce.OPTIONAL,
    }
