import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from salattack.errors import SalattackError
from salattack.generators import GENERATORS, StarGAN, load_generator
from salattack.weights import SHIPPED, fit, read_state_dict


def test_the_published_size_and_names():
    state = StarGAN().state_dict()
    assert sum(v.numel() for v in state.values()) == pytest.approx(8.43e6, rel=1e-3)
    shapes = {
        "main.0.weight": (64, 8, 7, 7),
        "main.3.weight": (128, 64, 4, 4),
        "main.6.weight": (256, 128, 4, 4),
        "main.9.main.0.weight": (256, 256, 3, 3),
        "main.14.main.4.bias": (256,),
        "main.15.weight": (256, 128, 4, 4),
        "main.18.weight": (128, 64, 4, 4),
        "main.21.weight": (3, 64, 7, 7),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    assert not any("running" in name for name in state)


@pytest.mark.parametrize("size", [64, 128])
def test_edits_keep_shape_and_range(generator, size):
    images = torch.rand(2, 3, size, size) * 2 - 1
    fakes = generator(images, torch.eye(5)[:2])
    assert fakes.shape == images.shape and fakes.abs().max() <= 1
    assert not torch.equal(fakes[0], generator(images[:1], torch.eye(5)[1:2])[0])


def test_a_published_checkpoint_loads_without_its_running_statistics(tmp_path):
    plain = StarGAN(conv_dim=8)
    state = dict(plain.state_dict())
    for name, module in plain.named_modules():
        if isinstance(module, nn.InstanceNorm2d):
            state[f"{name}.running_mean"] = torch.randn(module.num_features)
            state[f"{name}.running_var"] = torch.rand(module.num_features)
            state[f"{name}.num_batches_tracked"] = torch.tensor(7)
    torch.save(state, tmp_path / "200000-G.ckpt")
    with pytest.warns(UserWarning, match="is not the published 200000-G.ckpt"):
        loaded = load_generator("stargan-celeba-128", tmp_path / "200000-G.ckpt", "cpu")
    images, target = torch.rand(2, 3, 32, 32) * 2 - 1, torch.eye(5)[:2]
    assert (loaded(images, target) - plain(images, target)).abs().max() <= 1e-5
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())


def test_published_models_need_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("SALATTACK_CACHE", str(tmp_path))
    with pytest.raises(SalattackError, match=r"200000-G.ckpt is not in the package; get it from"):
        load_generator("stargan-celeba-256")


def test_misfits_are_named(tmp_path):
    state = StarGAN(conv_dim=8).state_dict()
    state.pop("main.3.weight")
    state["main.6.weight"] = torch.zeros(1)
    state["head"] = torch.zeros(1)
    state["tail"] = torch.zeros(1)
    save_file(state, tmp_path / "bad.safetensors")
    with pytest.raises(SalattackError) as error:
        load_generator(weights=tmp_path / "bad.safetensors")
    message = str(error.value)
    assert "main.3.weight: missing" in message and "and 1 more" in message
    with pytest.raises(SalattackError, match=r"main.0.weight: shape \(8, 8, 7, 7\) instead of"):
        fit(StarGAN(), StarGAN(conv_dim=8).state_dict(), "small")


class Trap:
    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_in_a_pickle_is_never_executed(tmp_path):
    trap, sprung = Trap(), tmp_path / "sprung"
    trap.path = sprung
    for name, save in (
        ("a.ckpt", torch.save),
        ("b.pkl", lambda o, p: p.write_bytes(pickle.dumps(o))),
    ):
        save({"main.0.weight": trap}, tmp_path / name)
        with pytest.raises(SalattackError, match=r"not executed|not a readable weights file"):
            load_generator(weights=tmp_path / name)
    assert not sprung.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.safetensors", b"nonsense"),
        ("a.ckpt", b"nonsense"),
        ("b.ckpt", b""),
        ("c.ckpt", b"PK\3\4"),
    ],
)
def test_damaged_files_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SalattackError, match=name):
        load_generator(weights=tmp_path / name)


def test_missing_and_tampered_files_are_refused(tmp_path):
    with pytest.raises(SalattackError, match="no weights file at"):
        load_generator(weights=tmp_path / "none.safetensors")
    entry = GENERATORS["stargan-celeba128-w32"]
    tampered = tmp_path / entry.file
    content = bytearray((SHIPPED / entry.file).read_bytes())
    content[-1] ^= 1
    tampered.write_bytes(content)
    with pytest.raises(SalattackError, match="is damaged: sha256"):
        read_state_dict(tampered, expected_sha256=entry.sha256)


def test_a_list_is_not_a_state_dict(tmp_path):
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(SalattackError, match="does not hold a state dict but a list"):
        load_generator(weights=tmp_path / "list.ckpt")
