import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from salattack.errors import SalattackError
from salattack.faces import from_uint8
from salattack.generators import load_generator
from salattack.generators.stargan import ATTRIBUTES, StarGAN
from salattack.training import grids, quality
from salattack.training import stargan as training
from salattack.training.adversary import Discriminator

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
    """Spare the evaluations of a training that is about something else."""
    monkeypatch.setattr(training, "evaluate", lambda *_, **__: {})


def run(data, out, **changes):
    settings = {"steps": 4, "batch_size": 2, "conv_dim": 4, "discriminator_dim": 2}
    settings |= {"held_out": 1, "evaluate_faces": 1, "checkpoint_seconds": 0}
    settings |= {"perceptual": 0, "classification": 0}
    return training.train(data, out, **settings | changes)


@pytest.mark.slow
@pytest.mark.parametrize("adversarial", [False, True])
def test_killed_and_resumed_equals_uninterrupted(data, tmp_path, monkeypatch, adversarial):
    whole = training.read_checkpoint(run(data, tmp_path / "whole", adversarial=adversarial))

    sample, calls = training.sample, []

    def die_in_the_third_step(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return sample(*args)

    with monkeypatch.context() as patched:
        patched.setattr(training, "sample", die_in_the_third_step)
        with pytest.raises(KeyboardInterrupt):
            run(data, tmp_path / "killed", adversarial=adversarial)
    assert training.read_checkpoint(tmp_path / "killed" / "checkpoint.pt")["step"] == 2
    resumed = training.read_checkpoint(run(data, tmp_path / "killed", adversarial=adversarial))
    assert resumed["step"] == whole["step"] == 4
    for part in ("generator", "average", *(["discriminator"] if adversarial else [])):
        for name, value in whole[part].items():
            assert torch.equal(resumed[part][name], value), (part, name)
    curves = [pd.read_csv(tmp_path / kind / "evaluation.csv") for kind in ("whole", "killed")]
    pd.testing.assert_frame_equal(*curves)


@pytest.mark.slow
def test_training_moves_the_weights_and_depends_on_the_seed_only(data, tmp_path, unmeasured):
    one, same, other = (
        training.read_checkpoint(run(data, tmp_path / name, steps=1, seed=seed))["generator"]
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
    monkeypatch.setattr(training, "CLASSIFIER_STEPS", 2)
    alone, beside = (
        training.read_checkpoint(
            run(data, tmp_path / str(w), steps=2, perceptual=w, classification=w)
        )
        for w in (0, 0.1)
    )
    assert alone["sums"].keys() == {"pair"}
    assert beside["sums"].keys() == {"pair", "feature", "logits"}
    key = "main.0.weight"
    assert not torch.equal(alone["generator"][key], beside["generator"][key])


def test_one_edit_alone_trains_cyclegans_generator(data, tmp_path, unmeasured):
    checkpoint = run(data, tmp_path / "out", steps=2, conv_dim=9, edit="Blond_Hair")
    exported = training.export(checkpoint, tmp_path / "w.safetensors")
    loaded = load_generator("cyclegan-vangogh-256", exported, "cpu")
    assert loaded.model[1].weight.shape == (9, 3, 7, 7)
    with pytest.raises(SalattackError, match="unknown edit 'Bald'; known: Black_Hair"):
        run(data, tmp_path / "other", edit="Bald")
    with pytest.raises(SalattackError, match="leave out the edit"):
        run(data, tmp_path / "other", edit="Male", adversarial=True)


def test_a_single_edit_is_evaluated_alone(data):
    held = grids.load_grids(data).split(1)[1]
    answer = from_uint8(held.tiles[:, 2])
    result = quality.evaluate(lambda *_: answer, held, edits=["Blond_Hair"], attacked=0)
    assert result == {"ratio_Blond_Hair": 0, "ratio": 0, "ssim": pytest.approx(1)}


def test_identity_has_ratio_one_and_no_change_has_no_damage(data):
    held = grids.load_grids(data).split(1)[1]
    result = quality.evaluate(lambda images, _: images, held)
    assert result["ratio"] == pytest.approx(1)
    assert all(result[f"ratio_{name}"] == pytest.approx(1) for name in ATTRIBUTES)
    assert 0 < result["damage"] <= 0.05**2
    assert result["broken"] == 0


def test_the_recorded_output_has_ratio_zero_and_full_similarity(data):
    held = grids.load_grids(data).split(1)[1][:1]
    answers = iter(range(5))
    result = quality.evaluate(
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


@pytest.mark.parametrize(("size", "patches"), [(64, 1), (128, 2)])
def test_discriminator_has_the_published_shape(size, patches):
    judge = Discriminator(size, conv_dim=2)
    score, logits, features = judge(torch.zeros(1, 3, size, size))
    assert score.shape == (1, 1, patches, patches)
    assert logits.shape == (1, 5)
    assert [f.shape[1] for f in features] == [2, 4, 8, 16, 32, 64]


def test_export_is_half_precision_and_loads_again(data, tmp_path, unmeasured):
    checkpoint = run(data, tmp_path / "out", steps=1)
    state = load_file(training.export(checkpoint, tmp_path / "w.safetensors"))
    assert {v.dtype for v in state.values()} == {torch.float16}
    assert state.keys() == StarGAN(4).state_dict().keys()
    with pytest.raises(SalattackError, match="known: average, generator"):
        training.export(checkpoint, tmp_path / "w.safetensors", weights="best")


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
        (drop_labels, "no labels.csv"),
        (drop_column, "lacks the column Male"),
        (drop_row, "10.jpg is 768×256 px, but 1 labelled rows"),
        (drop_first_row, "1.jpg: labels.csv misses"),
        (spoil_label, "not 0 or 1"),
        (drop_grid, "2.jpg: only labels"),
        (drop_grids, "no grids"),
        (cut_grids, "2 of 3 grids cannot be decoded: 1.jpg, 10.jpg"),
    ],
)
def test_bad_data_is_named_and_refused(data, spoil, message):
    spoil(data)
    with pytest.raises(SalattackError, match=message):
        grids.load_grids(data)


def test_bad_checkpoints_are_refused(data, tmp_path, unmeasured):
    checkpoint = run(data, tmp_path / "out", steps=1)
    with pytest.raises(SalattackError, match="does not fit these settings"):
        run(data, tmp_path / "out", conv_dim=8)
    torch.save({"a": torch.zeros(1)}, checkpoint)
    with pytest.raises(SalattackError, match="not a checkpoint"):
        training.export(checkpoint, tmp_path / "w.safetensors")
    with pytest.raises(SalattackError, match="no weights file"):
        run(data, tmp_path / "new", init=tmp_path / "absent.safetensors")


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


@pytest.mark.slow
def test_classifier_learns_a_visible_attribute():
    labels = torch.arange(64)[:, None].remainder(2).float().expand(-1, 5)
    images = (labels[:, :3, None, None] * 155 + 50).expand(-1, -1, 64, 64).to(torch.uint8)
    classifier = quality.train_classifier(images, labels, steps=60, batch_size=16)
    assert ((classifier(from_uint8(images)) > 0) == labels.bool()).all()
