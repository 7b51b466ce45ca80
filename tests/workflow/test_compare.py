"""A run is compared with a reference: rounding passes, and a mistake does not."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

from salattack.cli import main as cli
from salattack.errors import SalattackError
from salattack.experiments import evaluation
from salattack.experiments.study import open_study
from salattack.reporting import tables
from salattack.workflow.compare import MEANS, as_lines, compare, other_settings

FIGURES = Path(__file__).parents[2] / "figures"
SAMPLES, TABLE = "table_1_samples.csv", "table_1.csv"


def run(place, *, threads=1, seed=0, steps=10, damaged=False):
    """Save the table of a small run: five faces, two attackers, 64 pixels."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        study = open_study(n_images=5, image_size=64, device="cpu")
        if damaged:  # other weights; scaling alone would cancel in the instance normalisation
            noise = torch.Generator().manual_seed(0)
            for weight in study.generator.parameters():
                if weight.ndim > 1:
                    weight += 0.1 * weight.std() * torch.randn(weight.shape, generator=noise)
        attacks = evaluation.attackers(["i-fgsm", "pgd"], 0.05, 0.01, steps, seed)
        rows = evaluation.evaluate(study, attacks, batch_size=5, progress=False)
    finally:
        torch.set_num_threads(before)
    tables.save_tables(rows, place)
    return place


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return run(tmp_path_factory.mktemp("reference"))


@pytest.mark.slow
def test_another_number_of_threads_agrees(reference, tmp_path):
    result = compare(run(tmp_path, threads=2), reference)
    assert list(result["output"]) == [TABLE, SAMPLES]
    assert result["agrees"].all(), as_lines(result)
    assert as_lines(result).endswith("2 of 2 outputs agree with the reference within rounding")


@pytest.mark.slow
@pytest.mark.parametrize("mistake", [{"seed": 1}, {"steps": 9}, {"damaged": True}])
def test_a_mistake_does_not_agree(reference, tmp_path, mistake):
    result = compare(run(tmp_path, **mistake), reference).set_index("output")
    assert not result.loc[SAMPLES, "agrees"], as_lines(result.reset_index())
    assert result.loc[SAMPLES, "difference"] > 1.5 * result.loc[SAMPLES, "tolerance"]


def test_the_committed_figures_agree_with_themselves(tmp_path):
    shutil.copytree(FIGURES, tmp_path, dirs_exist_ok=True)
    result = compare(tmp_path, FIGURES)
    assert result["agrees"].all() and (result["difference"] == 0).all()
    names = {p.name for p in FIGURES.iterdir() if p.suffix in (".csv", ".png", ".jpg")}
    assert set(result["output"]) == names - {"claims.csv"}


def test_values_beyond_the_tolerance_are_named(tmp_path):
    for name in ("robustness.csv", "transfer.png", "ablation.csv", TABLE):
        shutil.copy(FIGURES / name, tmp_path)
    shutil.copytree(tmp_path, tmp_path / "reference")
    table = pd.read_csv(tmp_path / "robustness.csv")
    table.loc[3, "damage_l2"] *= 1 + 1.1 * MEANS["fake"]
    table.to_csv(tmp_path / "robustness.csv", index=False)
    pd.read_csv(tmp_path / "ablation.csv").iloc[1:].to_csv(tmp_path / "ablation.csv", index=False)
    broken = pd.read_csv(tmp_path / TABLE)
    broken.loc[0, "success"] += 4 / 20
    broken.to_csv(tmp_path / TABLE, index=False)
    with Image.open(tmp_path / "transfer.png") as image:
        Image.eval(image.convert("RGB"), lambda value: max(value - 4, 0)).save(
            tmp_path / "transfer.png"
        )
    result = compare(tmp_path, tmp_path / "reference").set_index("output")
    assert result["where"].to_dict() == {
        "ablation.csv": "other rows",
        "robustness.csv": "damage_l2",
        TABLE: "success",
        "transfer.png": "pixels",
    }
    assert not result["agrees"].any()
    (tmp_path / TABLE).unlink()
    text = as_lines(compare(tmp_path, tmp_path / "reference"))
    assert "DIFFERS table_1.csv: missing" in text
    assert "0 of 4 outputs agree" in text and "these do not: ablation.csv, " in text


def test_a_value_that_became_no_number_does_not_agree(tmp_path):
    table = pd.read_csv(FIGURES / "robustness.csv")
    (tmp_path / "reference").mkdir()
    table.to_csv(tmp_path / "reference" / "robustness.csv", index=False)
    table.assign(remaining=float("nan")).to_csv(tmp_path / "robustness.csv", index=False)
    assert not compare(tmp_path, tmp_path / "reference")["agrees"].any()


@pytest.mark.slow
def test_the_command_ends_with_an_exit_code(reference, tmp_path, monkeypatch, capsys):
    def code(*arguments):
        monkeypatch.setattr("sys.argv", ["salattack", "compare", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code

    assert code(reference, reference) == 0
    shutil.copy(reference / TABLE, tmp_path)
    assert code(tmp_path, reference) == 1
    assert "DIFFERS table_1_samples.csv: missing" in capsys.readouterr().out
    assert code(reference, tmp_path / "nothing") == 1
    assert "holds no tables or pictures" in capsys.readouterr().err


def test_runs_with_other_settings_are_not_compared(tmp_path):
    manifest = json.loads((FIGURES / "manifest.json").read_text())
    path = tmp_path / "manifest.json"
    assert other_settings(tmp_path, FIGURES) is None  # no manifest, as of `salattack evaluate`
    compared = manifest["notebooks"]["attack_comparison"]["parameters"]
    compared |= {"output": "results", "ledger": "results/ledger.sqlite", "profile": None}
    path.write_text(json.dumps(manifest))
    assert other_settings(tmp_path, FIGURES) is None
    compared["n_images"] = 4
    path.write_text(json.dumps(manifest))
    assert "attack_comparison.n_images: 4 here, 20 in" in other_settings(tmp_path, FIGURES)
    compared["n_images"] = 20
    path.write_text(json.dumps(manifest | {"seed": 3}))
    assert "(seed: 3 here, 0 in" in other_settings(tmp_path, FIGURES)
    # A run without the published generators is compared with one that has them.
    del manifest["notebooks"]["published_generators"]
    path.write_text(json.dumps(manifest))
    assert other_settings(tmp_path, FIGURES) is None
    path.write_text("[]")
    with pytest.raises(SalattackError, match="cannot read"):
        other_settings(tmp_path, FIGURES)
