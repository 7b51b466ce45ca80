"""The README says what is so: its code runs, its table is the committed run's, its links exist."""

import json
import re
from hashlib import sha256
from pathlib import Path

import torch
from PIL import Image

from salattack.experiments import evaluation, table_1
from salattack.generators.registry import GENERATORS
from salattack.reporting import tables
from salattack.saliency import SALIENCY_MODELS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FIGURES = ROOT / "figures"
MANIFEST = json.loads((FIGURES / "manifest.json").read_text())


def test_the_example_runs_as_written(tmp_path, monkeypatch):
    (block,) = re.findall(
        r"(?:^    .*\n|^\n)+", README[README.index("    from salattack") :], re.M
    )[:1]
    code = "\n".join(line[4:] for line in block.splitlines())
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    with Image.open(tmp_path / "disrupted.png") as saved:
        assert saved.size == (128, 128)
    assert (names["disrupted"] - names["photo"]).abs().max() <= 0.1 + 1e-6
    assert not torch.equal(names["disrupted"], names["photo"])


def test_the_tables_are_those_of_the_committed_runs():
    quoted = re.findall(r"<!-- table: (\S+) -->\n(.*?)\n<!-- end -->", README, re.S)
    assert "figures/table_1.md" in dict(quoted) and len(quoted) >= 2
    for path, table in quoted:
        assert table.strip() == (ROOT / path).read_text().strip()


def test_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert len(links) > 8
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_committed_figures_are_those_of_the_manifest():
    for name, digest in MANIFEST["outputs"].items():
        assert sha256((FIGURES / name).read_bytes()).hexdigest() == digest, name
    here = {p.name for p in FIGURES.iterdir() if p.is_file()}
    assert here == {*MANIFEST["outputs"], "manifest.json"}


def test_the_committed_figures_were_made_with_the_shipped_weights():
    for entry in (GENERATORS["stargan-celeba128-w32"], SALIENCY_MODELS["pfan-light"]):
        assert MANIFEST["weights"][entry.file] == entry.sha256


def test_the_committed_table_follows_from_its_samples():
    import pandas as pd

    rows = pd.read_csv(FIGURES / "table_1_samples.csv")
    assert rows["face_id"].nunique() >= 20
    shown = tables.layout_markdown(table_1.by_sample_size(rows))
    assert shown == (FIGURES / "table_1.md").read_text().strip()
    shown = tables.damage_table(table_1.table_1(rows)).to_markdown()
    assert shown == (FIGURES / "table_1_damage.md").read_text().strip()
    found = table_1.findings(rows).loc["I-FGSM"]
    n = f"{len(rows[(rows.attacker == 'i-fgsm') & (rows.precision == 'uint8')])}"
    assert (
        found["Saliency-Aware has less L1"] == found["Saliency-Aware has less L2"] == f"{n} of {n}"
    )
    assert set(rows["attacker"]) == set(evaluation.TABLE)
