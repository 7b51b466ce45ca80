"""Generators that other people trained and published: their files, their outputs, bad files."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from kornia.color import rgb_to_lab
from onnx import helper
from published import (
    AGING,
    ANIME,
    DPR_512,
    HOSODA,
    SHINKAI,
    SMALL,
    graph_file,
    small,
    targets,
    written,
)
from safetensors.torch import save_file
from torch import nn

from salattack.errors import SalattackError
from salattack.experiments.study import open_study
from salattack.generators import GENERATORS, dpr, edits_of, load_generator
from salattack.presets import attacker
from salattack.runtime.device import frozen
from salattack.runtime.files import sha256

PUBLISHED = Path(__file__).parents[3] / "shared" / "weights" / "published"
REFERENCE = PUBLISHED / "reference_outputs.npz"
FILES = {
    AGING: "aging-cacd-128/generator.h5",
    SHINKAI: "cartoongan-shinkai",
    HOSODA: "cartoongan-hosoda",
    ANIME: "animeganv3-cute/AnimeGANv3_tiny_Cute.onnx",
    DPR_512: "dpr-512/trained_model_03.t7",
}
every_small = pytest.mark.parametrize("name", SMALL)


@pytest.fixture(scope="module")
def reference():
    if not REFERENCE.is_file():
        pytest.skip(f"needs the published files and {REFERENCE.name} in {PUBLISHED}")
    with np.load(REFERENCE) as file:
        return dict(file)


def channels_first(array):
    return torch.from_numpy(array).movedim(-1, -3)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("error")  # a checksum that is not the published one
def test_the_original_runtimes_outputs(name, reference):
    network = load_generator(name, PUBLISHED / FILES[name], "cpu")
    images, key = channels_first(reference["input"]), name.replace("-", "_")
    with torch.no_grad():
        if name == DPR_512:  # the authors' network takes and gives luminance
            light = torch.from_numpy(reference["dpr_512_light"]).expand(2, -1)
            made = network.relit(torch.from_numpy(reference["dpr_512_luminance_in"]), light)
            expected = torch.from_numpy(reference["dpr_512_out"])
        elif name == AGING:
            ages = [
                edits_of(name).targets(network, torch.zeros(2, 5), [e] * 2)
                for e in edits_of(name).names
            ]
            made = torch.stack([network(images, age) for age in ages])
            expected = channels_first(reference[key])
        else:
            made, expected = network(images), channels_first(reference[key])
    assert made.shape == expected.shape and (made - expected).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("build", "count"),
    [
        (GENERATORS[AGING].build, 69_171),
        (GENERATORS[SHINKAI].build, 11_129_667),
        (GENERATORS[ANIME].build, 605_616),
        (GENERATORS[DPR_512].build, 679_983),  # without what makes no picture
    ],
)
def test_the_published_sizes_are_the_defaults(build, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in build({}).parameters()) == count


@every_small
def test_a_file_of_that_format_gives_the_same_edits(name, tmp_path, photos):
    network, target = small(name), targets(name, 3)
    path = written(name, network, tmp_path)
    with pytest.warns(UserWarning, match=f"{path.name} is not the published"):
        loaded = load_generator(name, path, "cpu")
    network = frozen(network, torch.device("cpu"))
    with torch.no_grad():
        assert torch.equal(loaded(photos, target), network(photos, target))
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(state, tmp_path / "own.safetensors")
    with pytest.warns(UserWarning, match="own.safetensors is not the published"):
        again = load_generator(name, tmp_path / "own.safetensors", "cpu")
    with torch.no_grad():
        assert torch.equal(again(photos, target), network(photos, target))


@pytest.mark.parametrize(
    ("name", "divisor"), [(AGING, 4), (SHINKAI, 4), (ANIME, 16), (DPR_512, 16)]
)
def test_sides_and_targets_that_do_not_fit(name, divisor, photos):
    network, n = small(name), 64 - divisor // 2
    with pytest.raises(SalattackError, match=f"multiples of {divisor}, got {n}×64"):
        network(photos[..., :n], targets(name, 3))
    assert network(photos[..., divisor:], targets(name, 3)).shape[-1] == 64 - divisor
    if name in (AGING, DPR_512):
        with pytest.raises(SalattackError, match=r"takes a target of \(3, \d\), .*, got \(3, 5\)"):
            network(photos, torch.eye(5)[:3])


@every_small
def test_a_flat_image_has_a_finite_gradient(name):
    network = small(name)
    for value in (-1.0, 0.0, 1.0):
        x = torch.full((1, 3, 32, 32), value, requires_grad=True)
        (gradient,) = torch.autograd.grad(network(x, targets(name, 1)).sum(), x)
        assert gradient.isfinite().all()


def test_cartoongan_takes_the_authors_own_file(tmp_path, photos):
    network = small(SHINKAI)
    folder = written(SHINKAI, network, tmp_path)
    state = {file.stem: torch.from_numpy(np.load(file)) for file in folder.iterdir()}
    torch.save(state, tmp_path / "Shinkai_net_G_float.pth")
    with pytest.warns(UserWarning, match="is not the published"):
        loaded = load_generator(SHINKAI, tmp_path / "Shinkai_net_G_float.pth", "cpu")
    with torch.no_grad():
        assert torch.equal(loaded(photos), frozen(network, torch.device("cpu"))(photos))


def test_an_age_for_each_row(photos):
    network = small(AGING)
    ages = edits_of(AGING).targets(network, torch.zeros(3, 5), ["Age_10-19", "Age_50+", "Age_50+"])
    assert ages.tolist() == [[0], [4], [4]]


def test_a_cartoon_is_rgb_of_a_network_on_bgr(photos):
    network = small(SHINKAI)
    network.conv01_1.weight.data[:, 1:] = 0  # sees its first channel only, blue
    x = photos.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(x).square().sum(), x)
    assert not gradient[:, :2].any() and gradient[:, 2].any()
    network.deconv03_1.weight.data.zero_()
    network.deconv03_1.bias.data = torch.tensor([1.0, 0.0, 0.0])
    with torch.no_grad():
        assert network(photos).mean((0, 2, 3)).tolist() == pytest.approx([0, 0, np.tanh(1)])


def test_a_light_changes_luminance_and_keeps_the_colours(photos):
    network = small(DPR_512)
    with torch.no_grad():
        lit = network(photos, targets(DPR_512, 3))
    before, after = (rgb_to_lab((x + 1) / 2) for x in (photos, lit))
    inside = (lit.abs() < 0.999).all(1)  # elsewhere the colour is outside RGB
    assert inside.float().mean() > 0.2
    assert (before - after)[:, 1:].abs().amax(1)[inside].max() < 0.1


def test_lights_come_from_where_they_say():
    lights = {name: dpr.light(*direction) for name, direction in dpr.DIRECTIONS.items()}
    assert all(len(light) == 9 for light in lights.values())
    left, right = lights["Light_left"], lights["Light_right"]
    assert left[3] < 0 < right[3]  # DPR's x points to the right, z up, y away from the viewer
    mirrored = [-1 if i in (3, 4, 7) else 1 for i in range(9)]
    assert left == pytest.approx([a * b for a, b in zip(mirrored, right, strict=True)])
    assert lights["Light_above"][2] > lights["Light_front"][2] and lights["Light_front"][1] < 0


def test_a_folder_s_checksum_is_that_of_sha256sum_s_list(tmp_path):
    (tmp_path / "b.npy").write_bytes(b"")
    (tmp_path / "a.npy").write_bytes(b"abc")
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    (tmp_path.parent / "list").write_text(f"{abc}  a.npy\n{empty}  b.npy\n")
    assert sha256(tmp_path) == sha256(tmp_path.parent / "list")


# Bad input


@every_small
def test_a_damaged_file_is_one_sentence(name, tmp_path):
    path = written(name, small(name), tmp_path)
    if path.is_dir():
        path = path / "conv04_1.weight.npy"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(SalattackError, match=rf"{path.name} is not a readable") as error:
        load_generator(name, path.parent if name == SHINKAI else path, "cpu")
    assert "\n" not in str(error.value)


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_in_an_array_is_never_executed(tmp_path):
    folder, sprung = written(SHINKAI, small(SHINKAI), tmp_path), tmp_path / "sprung"
    np.save(folder / "in01_1.scale.npy", np.array([Trap(sprung)], object), allow_pickle=True)
    with pytest.raises(SalattackError, match=r"in01_1\.scale\.npy is not a readable"):
        load_generator(SHINKAI, folder, "cpu")
    assert not sprung.exists()


def test_the_wrong_file_of_a_folder_is_named(tmp_path):
    folder = written(SHINKAI, small(SHINKAI), tmp_path)
    wrong = "is not the published shinkai: conv01_1.bias.npy is another file"
    with pytest.warns(UserWarning, match=wrong):
        load_generator(SHINKAI, folder, "cpu")


def test_a_folder_that_lacks_an_array(tmp_path):
    folder = written(SHINKAI, small(SHINKAI), tmp_path)
    (folder / "conv05_2.weight.npy").unlink()
    with pytest.raises(SalattackError, match=r'CartoonGAN: Missing key.*: "conv05_2.weight"\.$'):
        load_generator(SHINKAI, folder, "cpu")
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(SalattackError, match=r"holds no \.npy files"):
        load_generator(SHINKAI, folder, "cpu")


def test_text_in_hdf5_is_no_array(tmp_path):
    import h5py

    with h5py.File(tmp_path / "generator.h5", "w") as file:
        file["model_weights/a/a/kernel:0"] = "import os"
    with pytest.raises(SalattackError, match="is not a readable weights file"):
        load_generator(AGING, tmp_path / "generator.h5", "cpu")


@pytest.mark.parametrize(
    ("package", "name"),
    [("h5py", AGING), ("onnx", ANIME), ("onnx", "onnx"), ("onnx2torch", "onnx")],
)
def test_a_missing_package_is_named(package, name, tmp_path, monkeypatch):
    path = graph_file(tmp_path / "model.onnx", [helper.make_node("Tanh", ["x"], ["y"])])
    if name == AGING:
        path = written(name, small(name), tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SalattackError, match=rf"needs the package {package}: pip install 'salat"):
        load_generator(name, path, "cpu")


# Any ONNX file


def node(kind, *given, gives=("y",), **attributes):
    return helper.make_node(kind, list(given), list(gives), **attributes)


KERNEL = torch.randn(3, 3, 3, 3, generator=torch.Generator().manual_seed(0)) / 3
NODES = (
    helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
    helper.make_node("Tanh", ["c"], ["y"]),
)


def convolved(x):
    return nn.functional.conv2d(x, KERNEL, padding=1)


def plain(path, **how):
    return graph_file(path, NODES, w=KERNEL.numpy(), **how)


def test_an_onnx_generator(tmp_path, photos):
    network = load_generator("onnx", plain(tmp_path / "model.onnx"), "cpu")
    x = photos.clone().requires_grad_()
    torch.testing.assert_close(network(x, None), convolved(x).tanh())
    (gradient,) = torch.autograd.grad(network(x).square().sum(), x)
    (expected,) = torch.autograd.grad(convolved(x).tanh().square().sum(), x)
    torch.testing.assert_close(gradient, expected)
    result = attacker("i-fgsm", steps=2)(network, photos, None)
    assert 0 < (result - photos).abs().max() <= 0.05 + 1e-6
    assert not network.training and not any(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("value_range", [(-1, 1), (0, 1), (0, 255)])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_layouts_and_ranges(value_range, layout, tmp_path, photos):
    low, high = value_range
    nodes = [helper.make_node("Mul", ["x", "half"], ["y"])]
    shape = ("n", 3, "h", "w") if layout == "nchw" else (1, "h", "w", 3)
    half = np.float32([0.5, 1, 0.25])
    half = half[:, None, None] if layout == "nchw" else half
    path = graph_file(tmp_path / "model.onnx", nodes, shape=shape, half=half)
    network = load_generator("onnx", path, "cpu", layout=layout, value_range=value_range)
    theirs = (photos + 1) / 2 * (high - low) + low
    theirs = theirs * torch.tensor([0.5, 1, 0.25])[:, None, None]
    expected = (theirs - low) / (high - low) * 2 - 1
    torch.testing.assert_close(network(photos), expected, atol=1e-5, rtol=0)


def test_fixed_batches_and_sides(tmp_path, photos):
    path = plain(tmp_path / "model.onnx", shape=(1, 3, 64, 64))
    network = load_generator("onnx", path, "cpu")
    torch.testing.assert_close(network(photos), convolved(photos).tanh())
    with pytest.raises(SalattackError, match=r"model.onnx takes images of 64×64, got 64×32"):
        network(photos[..., :32])


@pytest.mark.parametrize("opset", [13, 17, 18, 22])
def test_newer_opsets(opset, tmp_path, photos):
    nodes = [
        node("Conv", "x", "w", gives=["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Resize", "c", "", "s", mode="nearest", nearest_mode="floor",
             coordinate_transformation_mode="asymmetric", gives=["r"]),
        node("Tanh", "r"),
    ]  # fmt: skip
    path = graph_file(
        tmp_path / "model.onnx", nodes, opset=opset, w=KERNEL.numpy(), s=np.float32([1, 1, 2, 2])
    )
    half = nn.functional.conv2d(photos, KERNEL, padding=1, stride=2)
    expected = nn.functional.interpolate(half, scale_factor=2).tanh()
    torch.testing.assert_close(load_generator("onnx", path, "cpu")(photos), expected)


def test_it_serves_a_study(tmp_path):
    path = plain(tmp_path / "model.onnx")
    study = open_study(generator="onnx", generator_weights=str(path), n_images=1, device="cpu")
    photos, labels, _ = next(study.batches(1))
    torch.testing.assert_close(study.generate(photos, labels), convolved(photos).tanh())
    options = {"value_range": (0, 1)}
    other = open_study(
        generator="onnx",
        generator_weights=str(path),
        generator_options=options,
        n_images=1,
        device="cpu",
    )
    assert not torch.equal(other.generate(photos, labels), study.generate(photos, labels))
    assert other.settings() != study.settings()


@pytest.mark.parametrize(
    ("nodes", "how", "message"),
    [
        ([node("Warp", "x", domain="own")], {}, "onnx2torch fails at its operator Warp"),
        ([node("Hardmax", "x")], {}, "onnx2torch fails at its operator Hardmax"),
        ([node("Det", "x")], {}, "onnx2torch fails at its operator Det"),
        (
            [node("Pad", "x", "p", mode="reflect")],
            {"p": np.array([0, 1, 0, 0, 0, 1, 0, 0])},
            "onnx2torch fails at its operator Pad",
        ),
        ([node("Round", "x")], {}, "is not differentiable in its image"),
        (
            [node("Cast", "x", gives=["i"], to=2), node("Cast", "i", to=1)],
            {},
            "is not differentiable in its image",
        ),
        ([node("Add", "x", "k")], {"k": np.float32([255])}, "check value_range"),
        ([node("GlobalAveragePool", "x")], {}, "makes 1×3×1×1 of an image of 1×3×128×128"),
        ([node("Add", "x", "z")], {"inputs": ["x", "z"]}, r"has 2 inputs \(x, z\)"),
        (
            [node("Tanh", "x"), node("Sigmoid", "x", gives=["mask"])],
            {"outputs": ["y", "mask"]},
            r"has 2 outputs \(y, mask\)",
        ),
        ([node("Tanh", "x")], {"shape": (1, 64, 64, 3)}, "RGB images in layout nchw; choose the"),
        ([node("Tanh", "x")], {"shape": ("n", 1, 64, 64)}, "does not take RGB images"),
        ([node("Tanh", "x")], {"shape": ("n", 10)}, "an input of 2 dimensions, not images"),
        ([node("Tanh", "q")], {}, "is not a readable ONNX model"),
    ],
)
def test_an_onnx_file_that_cannot_be_attacked(nodes, how, message, tmp_path):
    path = graph_file(tmp_path / "model.onnx", nodes, **how)
    with pytest.raises(SalattackError, match=message) as error:
        load_generator("onnx", path, "cpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("onnx", {"layout": "chw"}, "unknown layout 'chw'; known: nchw, nhwc"),
        ("onnx", {"value_range": (1, 0)}, r"value_range must be \(lowest, highest\)"),
        ("onnx", {"range": (0, 1)}, "unknown option of onnx 'range'; known: layout, value_range"),
        (AGING, {"layout": "nchw"}, "unknown option of aging-cacd-128 'layout'"),
    ],
)
def test_options_that_an_entry_does_not_take(name, options, message, tmp_path):
    with pytest.raises(SalattackError, match=message):
        load_generator(name, plain(tmp_path / "model.onnx"), "cpu", **options)


def test_onnx_needs_its_file(tmp_path):
    with pytest.raises(SalattackError, match=r"model.onnx is not in the package; pass its path"):
        load_generator("onnx")
    with pytest.raises(SalattackError, match="no weights file at"):
        load_generator("onnx", tmp_path / "none.onnx")


def test_the_published_file_that_cannot_be_converted_names_its_operator(reference):
    with pytest.raises(SalattackError, match="onnx2torch fails at its operator Pad"):
        load_generator("onnx", PUBLISHED / FILES[ANIME], "cpu", layout="nhwc")
