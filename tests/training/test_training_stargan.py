from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from salattack.edits import ATTRIBUTES
from salattack.errors import SalattackError
from salattack.generators import load_generator
from salattack.generators.stargan import StarGAN
from salattack.images import from_uint8
from salattack.training import grids, quality, resumable
from salattack.training import stargan as training
from salattack.training.__main__ import training_app

ROWS = 2


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def data(tmp_path):
    """Three grids of random smooth tiles, two rows each."""
    folder = tmp_path / "grids"
    folder.mkdir()
    rng = np.random.default_rng(0)
    table = []
    for grid in (1, 2, 10):
        small = rng.integers(0, 256, (ROWS * 8, 6 * 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((6 * 128, ROWS * 128)).save(folder / f"{grid}.jpg")
        table += [
            {"grid": grid, "row": row, **dict.fromkeys(ATTRIBUTES, row % 2)} for row in range(ROWS)
        ]
    pd.DataFrame(table).to_csv(folder / "labels.csv", index=False)
    return folder


@pytest.fixture
def unmeasured(monkeypatch):
    """Skip the evaluations, which are slow."""
    monkeypatch.setattr(training, "generator_quality", lambda *_, **__: {})


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(training, "EVALUATED", 1)
    monkeypatch.setattr(resumable, "CHECKPOINT_SECONDS", 0)


def run(data, out, **changes):
    """Train, and return the checkpoint's path."""
    settings = {"steps": 4, "batch_size": 2, "conv_dim": 4, "held_out": 1}
    settings |= {"perceptual": 0, "classification": 0}
    training.train_stargan(training.StarGANSettings(data=data, out=out, **settings | changes))
    return out / "checkpoint.pt"


@pytest.mark.slow
@pytest.mark.parametrize("last", [0, 2])
def test_killed_and_resumed_equals_uninterrupted(data, tmp_path, monkeypatch, last):
    monkeypatch.setattr(resumable, "LOG_EVERY", 2)
    monkeypatch.setattr(
        training,
        "generator_quality",
        lambda g, *_, **__: {"sum": sum(p.sum().item() for p in g.parameters())},
    )
    whole = resumable.read_checkpoint(run(data, tmp_path / "whole"))

    sample, calls = training.sample, []

    def die_after_the_last_step(*args):
        calls.append(args)
        if len(calls) > last:
            raise KeyboardInterrupt
        return sample(*args)

    with monkeypatch.context() as patched:
        patched.setattr(training, "sample", die_after_the_last_step)
        with pytest.raises(KeyboardInterrupt):
            run(data, tmp_path / "killed")
    assert resumable.read_checkpoint(tmp_path / "killed" / "checkpoint.pt")["step"] == last
    with (tmp_path / "killed" / "evaluation.csv").open("a") as log:
        log.write("3,raw,0.5\n")  # a row after the last checkpoint, which is done again
    resumed = resumable.read_checkpoint(run(data, tmp_path / "killed"))
    assert resumed["step"] == whole["step"] == 4
    for part in ("network", "average"):
        for name, value in whole[part].items():
            assert torch.equal(resumed[part][name], value), (part, name)
    for log in ("losses.csv", "evaluation.csv"):
        curves = [(tmp_path / kind / log).read_text() for kind in ("whole", "killed")]
        assert curves[0] == curves[1]


def test_training_moves_the_weights_and_depends_on_the_seed_only(data, tmp_path, unmeasured):
    one, same, other = (
        resumable.read_checkpoint(run(data, tmp_path / name, steps=1, seed=seed))["network"]
        for name, seed in (("one", 0), ("same", 0), ("other", 1))
    )
    torch.manual_seed(0)
    start = StarGAN(4).state_dict()
    key = "main.0.weight"
    assert torch.equal(one[key], same[key])
    assert not torch.equal(one[key], other[key])
    assert not torch.equal(one[key], start[key])


def test_muon_moves_the_inner_kernels_and_adam_the_rest():
    generator = StarGAN(16)
    muon, adam = training.optimizers(generator, 1e-3)
    kernels = {id(kernel) for kernel in muon.kernels}
    others = {id(p) for p in adam.param_groups[0]["params"]}
    names = {id(p): name for name, p in generator.named_parameters()}
    assert kernels | others == set(names) and not kernels & others
    assert {names[i] for i in others if names[i].endswith("weight")} >= {"main.0.weight"}
    before = {name: p.detach().clone() for name, p in generator.named_parameters()}
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    for _ in range(2):
        generator(images, torch.eye(5)[:2]).sub(images).abs().mean().backward()
        muon.step()
        generator.zero_grad()
    for name, p in generator.named_parameters():
        assert torch.equal(p, before[name]) == (id(p) not in kernels), name
    step = (generator.main[9].main[0].weight - before["main.9.main.0.weight"]).flatten(1)
    # matched to Adam's: root mean square 0.2 of the rate a step, alike in all directions
    assert step.square().mean().sqrt().item() == pytest.approx(2 * 0.2e-3, rel=0.5)


@pytest.mark.slow
def test_a_few_steps_come_closer_to_the_recorded_output(data, tmp_path, unmeasured):
    out = tmp_path / "out"
    run(data, out, steps=40, conv_dim=8)
    loss = pd.read_csv(out / "losses.csv")["pair"]
    assert loss.iloc[-1] < 0.9 * loss.iloc[0]


def test_other_distances_come_beside_that_in_pixels(data, tmp_path, unmeasured, monkeypatch):
    monkeypatch.setattr(training, "train_classifier", partial(quality.train_classifier, steps=2))
    alone, beside = (
        resumable.read_checkpoint(
            run(data, tmp_path / str(w), steps=2, perceptual=w, classification=w)
        )
        for w in (0, 0.1)
    )
    assert alone["sums"].keys() == {"pair"}
    assert beside["sums"].keys() == {"pair", "feature", "logits"}
    key = "main.0.weight"
    assert not torch.equal(alone["network"][key], beside["network"][key])


def test_one_edit_alone_trains_cyclegans_generator(data, tmp_path, unmeasured):
    run(data, tmp_path / "out", steps=2, conv_dim=9, edit="Blond_Hair")
    weights = tmp_path / "out" / "generator.safetensors"
    loaded = load_generator("cyclegan-vangogh-256", weights, "cpu")
    assert loaded.model[1].weight.shape == (9, 3, 7, 7)
    with pytest.raises(SalattackError, match="unknown edit 'Bald'; known: Black_Hair"):
        run(data, tmp_path / "other", edit="Bald")


def test_a_single_edit_is_evaluated_alone(data):
    held = grids.load_grids(data).split(1)[1]
    answer = from_uint8(held.tiles[:, 2])
    result = quality.generator_quality(lambda *_: answer, held, edits=["Blond_Hair"], attacked=0)
    assert result == {"ratio_Blond_Hair": 0, "ratio": 0, "ssim": pytest.approx(1)}


def test_identity_has_ratio_one_and_no_change_has_no_damage(data):
    held = grids.load_grids(data).split(1)[1]
    result = quality.generator_quality(lambda images, _: images, held)
    assert result["ratio"] == pytest.approx(1)
    assert all(result[f"ratio_{name}"] == pytest.approx(1) for name in ATTRIBUTES)
    assert 0 < result["damage"] <= 0.05**2
    assert result["broken"] == 0


def test_the_recorded_output_has_ratio_zero_and_full_similarity(data):
    held = grids.load_grids(data).split(1)[1][:1]
    answers = iter(range(5))
    result = quality.generator_quality(
        lambda *_: from_uint8(held.tiles[:, 1 + next(answers)]), held, attacked=0
    )
    assert result["ratio"] == 0
    assert result["ssim"] == pytest.approx(1)
    assert "damage" not in result


def test_the_last_grids_by_number_are_held_out(data):
    every = grids.load_grids(data)
    trained, held = every.split(1)
    assert held.grid.unique().tolist() == [10]
    assert trained.grid.unique().tolist() == [1, 2]
    assert every.targets()[0].tolist()[1] == [0, 1, 0, 0, 0]
    for number in (0, 3):
        with pytest.raises(SalattackError, match="hold out"):
            every.split(number)


def test_export_is_half_precision_and_loads_again(data, tmp_path, unmeasured):
    checkpoint = run(data, tmp_path / "out", steps=2)
    exported = resumable.export(checkpoint, tmp_path / "average.safetensors")
    assert exported.read_bytes() == (tmp_path / "out" / "generator.safetensors").read_bytes()
    average = load_file(exported)
    raw = load_file(resumable.export(checkpoint, tmp_path / "raw.safetensors", raw=True))
    assert {v.dtype for v in raw.values()} == {torch.float16}
    assert average.keys() == raw.keys() == StarGAN(4).state_dict().keys()
    assert not torch.equal(average["main.0.weight"], raw["main.0.weight"])


def drop_labels(folder):
    (folder / "labels.csv").unlink()


def drop_column(folder):
    pd.read_csv(folder / "labels.csv").drop(columns="Male").to_csv(
        folder / "labels.csv", index=False
    )


def drop_row(folder):
    pd.read_csv(folder / "labels.csv").iloc[:-1].to_csv(folder / "labels.csv", index=False)


def drop_first_row(folder):
    pd.read_csv(folder / "labels.csv").iloc[1:].to_csv(folder / "labels.csv", index=False)


def spoil_label(folder):
    pd.read_csv(folder / "labels.csv").replace({"Male": {1: -1}}).to_csv(
        folder / "labels.csv", index=False
    )


def drop_grid(folder):
    (folder / "2.jpg").unlink()


def drop_grids(folder):
    for file in folder.glob("*.jpg"):
        file.unlink()


def cut_grids(folder):
    for name in ("1.jpg", "10.jpg"):
        file = folder / name
        file.write_bytes(file.read_bytes()[:500])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop_labels, "labels.csv needs the columns grid, row, Black_Hair.*No such file"),
        (drop_column, "labels.csv needs the columns .*Male"),
        (drop_row, "labels.csv has no row of 0 and 1 for 10 1"),
        (drop_first_row, "labels.csv has no row of 0 and 1 for 1 0"),
        (spoil_label, "no row of 0 and 1 for 1 1"),
        (drop_grid, "has a row, but no picture for 2 0"),
        (drop_grids, "no grids"),
        (cut_grids, "1.jpg is not a readable grid"),
    ],
)
def test_bad_data_is_named_and_refused(data, spoil, message):
    spoil(data)
    with pytest.raises(SalattackError, match=message):
        grids.load_grids(data)


def test_bad_checkpoints_are_refused(data, tmp_path, unmeasured):
    checkpoint = run(data, tmp_path / "out", steps=1)
    with pytest.raises(SalattackError, match="another seed, conv_dim; resume with the same"):
        run(data, tmp_path / "out", steps=1, conv_dim=8, seed=1)
    run(data, tmp_path / "out", steps=1, threads=1, device="cpu")
    state = torch.load(checkpoint)
    torch.save(state | {"network": {}}, checkpoint)
    with pytest.raises(SalattackError, match="does not fit this version"):
        run(data, tmp_path / "out", steps=1)
    torch.save({"a": torch.zeros(1)}, checkpoint)
    with pytest.raises(SalattackError, match="not a checkpoint"):
        resumable.export(checkpoint, tmp_path / "w.safetensors")
    with pytest.raises(SalattackError, match="no weights file"):
        run(data, tmp_path / "new", init=tmp_path / "absent.safetensors")


def test_a_loss_that_is_not_finite_stops_the_training(data, tmp_path, unmeasured):
    with pytest.raises(SalattackError, match=r"not finite at step \d+; lower the learning rate"):
        run(data, tmp_path / "out", steps=60, lr=float("inf"))


def test_commands_train_and_export(data, tmp_path):
    out = tmp_path / "out"
    options = "--steps 1 --batch-size 1 --conv-dim 4 --held-out 1 --perceptual 0 --classification 0"
    result = CliRunner().invoke(training_app, ["stargan", str(data), str(out), *options.split()])
    assert result.exit_code == 0 and result.output.split()[-1].endswith("generator.safetensors")
    curve = pd.read_csv(out / "evaluation.csv")
    assert curve["weights"].tolist() == ["raw", "average"] * 2 and curve["damage"].min() > 0
    arguments = ["export", str(out / "checkpoint.pt"), str(tmp_path / "w.safetensors"), "--raw"]
    assert CliRunner().invoke(training_app, arguments).exit_code == 0
    assert load_file(tmp_path / "w.safetensors").keys() == StarGAN(4).state_dict().keys()


def test_flip_rates_count_what_a_classifier_sees():
    labels = torch.eye(5)[torch.arange(40) % 5]
    crops = torch.full((40, 3, 128, 128), 60, dtype=torch.uint8)
    edited = torch.full_like(crops, 200)
    held = grids.Grids(
        tiles=torch.stack([crops, *[edited] * 5], dim=1), labels=labels, grid=torch.ones(40)
    )

    def sees(images):  # every attribute, in bright images
        return images.mean((1, 2, 3))[:, None].expand(-1, 5)

    table = quality.flip_rates(sees, lambda images, _: images, held).set_index("attribute")
    hair = table.loc[["Black_Hair", "Blond_Hair", "Brown_Hair"]]
    assert (hair["faces"] == 32).all()
    assert (hair["ours"] == 0).all()
    assert (hair["published"] == 1).all()
    assert table.loc["Male", "accuracy"] == pytest.approx(0.8)


def test_classifier_learns_a_visible_attribute():
    labels = torch.arange(64)[:, None].remainder(2).float().expand(-1, 5)
    images = (labels[:, :3, None, None] * 155 + 50).expand(-1, -1, 64, 64).to(torch.uint8)
    classifier = quality.train_classifier(images, labels, steps=60, batch_size=16)
    assert ((classifier(from_uint8(images)) > 0) == labels.bool()).all()
