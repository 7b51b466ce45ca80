import io
import tarfile

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from salattack.errors import SalattackError
from salattack.experiments.study import open_study
from salattack.faces import load_faces
from salattack.runtime.weights import SHIPPED_WEIGHTS
from salattack.saliency import SALIENCY_MODELS, load_saliency
from salattack.saliency.pfan import PFAN, PFANLight
from salattack.training import resumable
from salattack.training import saliency as training
from salattack.training.quality import saliency_quality
from salattack.training.saliency import (
    Pairs,
    SaliencySettings,
    _clean,
    load_backbone,
    train_saliency,
)


@pytest.fixture(scope="module")
def light():
    return load_saliency("pfan-light", device="cpu")


@pytest.fixture(scope="module")
def faces():
    """Two selfies and two studio portraits with their indices."""
    every = load_faces("openpeople")
    return every, [0, 7, 10, 17]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A checkpoint as the port writes it, with random weights, and the network it came from."""
    torch.manual_seed(0)
    net = PFAN()
    for name, value in net.named_buffers():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            value.normal_(0, 0.1)
    path = tmp_path_factory.mktemp("port") / "best-model.pth"
    scores = {"epoch": 204, "test_mae": np.mean([0.05]), "test_acc": torch.tensor(0.9)}
    torch.save({"model": net.state_dict(), **scores}, path)
    return path, net.eval()


def plain_pfan(p, x):
    """PFAN written out once more, straight from the paper and the port's parameter names."""

    def conv(name, x, dilation=1):
        weight = p[f"{name}.weight"]
        pad = [dilation * (k // 2) for k in weight.shape[-2:]]
        return F.conv2d(x, weight, p.get(f"{name}.bias"), padding=pad, dilation=dilation)

    def norm(name, x):
        mean, var = p[f"{name}.running_mean"], p[f"{name}.running_var"]
        return F.relu(F.batch_norm(x, mean, var, p[f"{name}.weight"], p[f"{name}.bias"]))

    def up(x, factor):
        size = [factor * side for side in x.shape[-2:]]
        return F.interpolate(x, size=size, mode="bilinear", align_corners=True)

    def cpfe(name, x):
        parts = [conv(f"{name}.conv_1_1", x)]
        parts += [conv(f"{name}.conv_dil_{d}", x, d) for d in (3, 5, 7)]
        return norm(f"{name}.bn", torch.cat(parts, 1))

    sides = []
    for stage in ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)):
        x = F.max_pool2d(x, 2) if sides else x
        for index in stage:
            x = conv(f"vgg16.{index}", x).relu()
        sides.append(x)
    high = [cpfe(f"cpfe_conv{i}_3", sides[i - 1]) for i in (3, 4, 5)]
    high = torch.cat([high[0], up(high[1], 2), up(high[2], 4)], 1)
    attention = high.mean((2, 3))
    for name, activation in (("linear_1", torch.relu), ("linear_2", torch.sigmoid)):
        weight, bias = p[f"cha_att.{name}.weight"], p[f"cha_att.{name}.bias"]
        attention = activation(attention @ weight.T + bias)
    high = up(norm("hl_bn1", conv("hl_conv1", high * attention[..., None, None])), 4)
    one, two = (norm(f"ll_bn_{i}", conv(f"ll_conv_{i}", sides[i - 1])) for i in (1, 2))
    low = norm("ll_bn_3", conv("ll_conv_3", torch.cat([one, up(two, 2)], 1)))
    fields = []
    for group, (first, second) in (("grp1", ("conv1k", "convk1")), ("grp2", ("convk1", "conv1k"))):
        field = norm(f"spa_att.{group}_bn1", conv(f"spa_att.{group}_{first}", high))
        fields.append(norm(f"spa_att.{group}_bn2", conv(f"spa_att.{group}_{second}", field)))
    low = low * torch.sigmoid(fields[0] + fields[1])
    return torch.sigmoid(conv("ff_conv_1", torch.cat([low, high], 1)))


def random_images(n, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 6, 6, generator=generator) * 2 - 1
    return F.interpolate(coarse, size=(height, width), mode="bilinear")


@pytest.mark.parametrize("size", [(128, 128), (178, 120), (64, 200), (33, 31)])
def test_map_has_the_image_size_and_stays_in_range(light, size):
    images = random_images(2, *size)
    found = light(images)
    assert found.shape == (2, 1, *size) and found.dtype == torch.float32
    assert found.isfinite().all() and found.min() >= 0 and found.max() <= 1
    assert torch.equal(found, light(images))
    assert not found.requires_grad and not light.training


def test_map_is_soft_and_a_batch_equals_its_images(light, faces):
    images = torch.stack([faces[0][i].image for i in faces[1]])
    found = light(images)
    assert ((found > 0.02) & (found < 0.98)).float().mean() > 0.01
    assert found.unique().numel() > 1000
    one_by_one = torch.cat([light(image[None]) for image in images])
    assert torch.allclose(found, one_by_one, atol=1e-5)


def test_light_model_is_small_and_gives_features(light):
    assert sum(p.numel() for p in light.parameters()) <= 8e6
    assert (SHIPPED_WEIGHTS / SALIENCY_MODELS["pfan-light"].file).stat().st_size <= 16e6
    features = light.feature_maps(random_images(2, 128, 128))
    assert [f.shape[-1] for f in features] == [64, 32, 16, 8, 4]


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 4, 64, 64)])
def test_what_is_no_batch_of_rgb_images_is_refused(light, shape):
    with pytest.raises(SalattackError, match=r"\(N, 3, H, W\)"):
        light(torch.zeros(shape))


def test_published_names_and_shapes():
    shapes = {k: tuple(v.shape) for k, v in PFAN().state_dict().items()}
    expected = {}

    def conv(name, out, inputs, *kernel, bias=True):
        expected[f"{name}.weight"] = (out, inputs, *kernel)
        if bias:
            expected[f"{name}.bias"] = (out,)

    def norm(name, channels):
        for part in ("weight", "bias", "running_mean", "running_var"):
            expected[f"{name}.{part}"] = (channels,)
        expected[f"{name}.num_batches_tracked"] = ()

    inputs = 3
    for index, out in zip(
        (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
        (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512),
        strict=True,
    ):
        conv(f"vgg16.{index}", out, inputs, 3, 3)
        inputs = out
    for level, inputs in ((3, 256), (4, 512), (5, 512)):
        name = f"cpfe_conv{level}_3"
        conv(f"{name}.conv_1_1", 32, inputs, 1, 1, bias=False)
        for d in (3, 5, 7):
            conv(f"{name}.conv_dil_{d}", 32, inputs, 3, 3, bias=False)
        norm(f"{name}.bn", 128)
    conv("cha_att.linear_1", 96, 384)
    conv("cha_att.linear_2", 384, 96)
    conv("hl_conv1", 64, 384, 3, 3)
    norm("hl_bn1", 64)
    for index, inputs in ((1, 64), (2, 128), (3, 128)):
        conv(f"ll_conv_{index}", 64, inputs, 3, 3)
        norm(f"ll_bn_{index}", 64)
    for group, first, second in (("grp1", "conv1k", "convk1"), ("grp2", "convk1", "conv1k")):
        kernels = {"conv1k": (1, 9), "convk1": (9, 1)}
        conv(f"spa_att.{group}_{first}", 32, 64, *kernels[first])
        norm(f"spa_att.{group}_bn1", 32)
        conv(f"spa_att.{group}_{second}", 1, 32, *kernels[second])
        norm(f"spa_att.{group}_bn2", 1)
    conv("ff_conv_1", 1, 128, 3, 3)
    assert shapes == expected


def test_published_checkpoint_gives_what_the_plain_definition_gives(published):
    path, net = published
    saliency = load_saliency("pfan-duts", weights=path, device="cpu")
    images = random_images(1, 192, 256)
    unit = F.pad((images + 1) / 2, (0, 0, 32, 32))  # zero-padded to the square
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    with torch.no_grad():
        plain = plain_pfan(net.state_dict(), (unit - mean) / std)
    found = saliency(images)
    assert found.shape == (1, 1, 192, 256)
    assert torch.allclose(found, plain[:, :, 32:-32], atol=1e-5)
    assert plain.std() > 1e-3


def test_unknown_name_and_missing_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("SALATTACK_CACHE", str(tmp_path))
    with pytest.raises(SalattackError, match="pfan-light, pfan-duts"):
        load_saliency("pfan")
    with pytest.raises(SalattackError, match=r"best-model_epoch-204.*fetch pfan-duts`.*Pyramid"):
        load_saliency("pfan-duts")


def test_a_mask_from_a_file_is_every_faces_map(tmp_path):
    half = np.zeros((64, 64), np.uint8)
    half[:, 32:] = 255
    Image.fromarray(half).save(tmp_path / "half.png")
    study = open_study(n_images=2, saliency="mask", saliency_weights=str(tmp_path / "half.png"))
    maps = study.saliency_map(next(study.batches())[0])
    assert maps.shape == (2, 1, 128, 128)
    assert maps[..., :63].max() == 0 and maps[..., 66:].min() == 1
    with pytest.raises(SalattackError, match="is not in the package; pass its path"):
        load_saliency("mask")


def write_pairs(path, n=4, extra=(), change=lambda name, content: content):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    with tarfile.open(path, "w") as tar:
        for index in range(n):
            image = rng.integers(0, 100, (40, 48, 3), dtype=np.uint8)
            mask = np.zeros((40, 48), np.uint8)
            mask[10:30, 12 + index : 36] = 255
            image[mask > 0] += 100
            for name, picture in (("images/{}.png", image), ("masks/{}.png", mask)):
                file = io.BytesIO()
                Image.fromarray(picture).save(file, "PNG")
                content = change(name.format(index), file.getvalue())
                if content is not None:
                    entry = tarfile.TarInfo(name.format(index))
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(resumable, "LOG_EVERY", 1)
    monkeypatch.setattr(resumable, "CHECKPOINT_SECONDS", 0)
    options = {"data": write_pairs(tmp_path / "duts_tr_192.tar"), "steps": 3, "batch_size": 4}
    options |= {"faces": write_pairs(tmp_path / "faces.tar"), "face_share": 0.25}
    options |= {"image_size": 64, "small_size": 32}
    whole = train_saliency(SaliencySettings(out=tmp_path / "whole", **options))
    batch = training._batch

    def die_in_the_second_step(settings, duts, faces, step):
        if step == 1:
            raise KeyboardInterrupt
        return batch(settings, duts, faces, step)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(training, "_batch", die_in_the_second_step)
        train_saliency(SaliencySettings(out=tmp_path / "parts", **options))
    checkpoint = tmp_path / "parts" / "checkpoint.pt"
    assert resumable.read_checkpoint(checkpoint)["step"] == 1
    checkpoint.with_name(".1.checkpoint.pt").write_bytes(b"killed while writing")
    parts = train_saliency(SaliencySettings(out=tmp_path / "parts", **options))
    states = [resumable.read_checkpoint(path.with_name("checkpoint.pt")) for path in (whole, parts)]
    for part in ("network", "average"):
        assert all(torch.equal(v, states[1][part][k]) for k, v in states[0][part].items())
    losses = (tmp_path / "parts" / "losses.csv").read_text()
    assert losses == (tmp_path / "whole" / "losses.csv").read_text() and losses.count("\n") == 4
    exported = load_saliency(weights=parts, device="cpu").hl_conv1.weight
    average = states[1]["average"]["module.hl_conv1.weight"]
    assert torch.allclose(exported, average, atol=1e-3)
    with pytest.raises(SalattackError, match="another seed"):
        train_saliency(SaliencySettings(out=tmp_path / "parts", seed=1, **options))


def test_unusable_training_data_is_named(tmp_path):
    with pytest.raises(SalattackError, match=r"not a readable tar .*No such file"):
        Pairs(tmp_path / "none.tar")
    (tmp_path / "text.tar").write_text("no tar" * 1000)
    with pytest.raises(SalattackError, match="not a readable tar"):
        Pairs(tmp_path / "text.tar")
    path = write_pairs(
        tmp_path / "lonely.tar", change=lambda n, c: None if n == "images/2.png" else c
    )
    with pytest.raises(SalattackError, match="1 without a partner, first 2"):
        Pairs(path)
    path = write_pairs(tmp_path / "whole.tar")
    path.write_bytes(path.read_bytes()[: 512 * 5])
    with pytest.raises(SalattackError, match=r"cut short|not a readable tar|partner"):
        Pairs(path)
    path = write_pairs(
        tmp_path / "bad.tar", change=lambda n, c: b"no image" if n == "images/1.png" else c
    )
    pairs = Pairs(path)
    assert pairs[0][0].size == (48, 40)
    with pytest.raises(SalattackError, match=r"bad.tar/images/1.png is not a readable picture"):
        pairs[1]
    with pytest.raises(SalattackError, match="multiples of 32"):
        train_saliency(SaliencySettings(data=path, out=tmp_path / "out", image_size=100))


def test_implausible_weak_labels_are_dropped_and_faces_filled():
    y, x = np.mgrid[:109, :89]
    head = (((x - 44) / 26) ** 2 + ((y - 58) / 38) ** 2 <= 1).astype(float)
    eyes = (abs(y - 50) < 4) & (abs(x - 44) < 15)
    verdict, filled = _clean(np.where(eyes, 0, head))
    assert verdict == "kept" and filled[eyes].min() == 1 and filled[:10].max() == 0
    assert _clean(head * (y > 70))[0] == "face missed"
    assert _clean(np.ones_like(head))[0] == "corner marked"
    assert _clean(np.maximum(head, 0.5 * (y > 60)))[0] == "unsure"
    assert _clean(np.maximum(head, y > 13))[0] == "implausible area"


def test_a_backbone_file_that_does_not_fit_is_refused(tmp_path):
    torch.save({"_conv_stem.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "other.pth")
    with pytest.raises(SalattackError, match=r"other\.pth is not EfficientNet-Lite0"):
        load_backbone(tmp_path / "other.pth")


def test_a_perfect_model_gets_full_marks(tmp_path):
    pytest.importorskip("py_sod_metrics")
    path = write_pairs(tmp_path / "pairs.tar")

    def brightness(images):
        return (images.mean(dim=1, keepdim=True) > -0.2).float()

    found = saliency_quality(brightness, path)
    assert found["images"] == 4 and found["mae"] < 0.01 and found["max_f"] > 0.98


def test_light_and_full_share_the_decoder():
    def decoder(net):
        backbones = ("vgg16", "backbone")
        return [k for k in net.state_dict() if not k.startswith(backbones)]

    assert decoder(PFAN()) == decoder(PFANLight())
