import copy
import hashlib
import pickle
from dataclasses import replace
from functools import partial
from pathlib import Path

import published
import pytest
import torch
from kornia.color import rgb_to_lab
from safetensors.torch import save_file
from torch import nn

from salattack.errors import SalattackError
from salattack.experiments.demonstration import edit_faces
from salattack.experiments.evaluation import attackers, evaluate
from salattack.experiments.robustness import TWICE, remaining_damage
from salattack.experiments.study import open_study
from salattack.experiments.transfer import across, each_edit
from salattack.generators import (
    GENERATORS,
    AttGAN,
    CycleGAN,
    EditSet,
    Ensemble,
    GANimation,
    StarGAN,
    StarGANv2,
    attgan,
    edits_of,
    ganimation,
    load_generator,
)
from salattack.presets import ATTACKERS, attacker
from salattack.protect.disruption import Protector, attack_of
from salattack.reporting.figures import attribute_visualization, edit_label
from salattack.runtime import weights
from salattack.runtime.device import frozen
from salattack.runtime.files import sha256
from salattack.runtime.weights import SHIPPED_WEIGHTS, fit
from salattack.saliency import SALIENCY_MODELS, load_saliency

CYCLEGAN, GANIMATION = "cyclegan-vangogh-256", "ganimation-celeba-128"
ATTGAN, STARGAN_V2 = "attgan-celeba-128", "stargan-v2-celeba-hq-256"
STARGAN = "stargan-celeba-128"
ADAPTERS = (CYCLEGAN, GANIMATION, ATTGAN, STARGAN_V2)
every_adapter = pytest.mark.parametrize("name", ADAPTERS)
every_network = pytest.mark.parametrize("name", [*ADAPTERS, *published.SMALL])


def small(name):
    """A narrow network of the entry's architecture, its parameters the same in every test."""
    if name in published.SMALL:
        return published.small(name)
    torch.manual_seed(0)
    if name == STARGAN_V2:
        return StarGANv2(4, 8, 64, style_dim=8, latent_dim=4, hidden=8).eval()
    build = {
        STARGAN: lambda: StarGAN(8, repeat_num=2),
        CYCLEGAN: lambda: CycleGAN(8, 2),
        GANIMATION: lambda: GANimation(8, repeat_num=2),
        ATTGAN: lambda: AttGAN(4),
    }
    network = build[name]().eval()
    for parameter in network.parameters():
        if name == ATTGAN and parameter.ndim == 4:  # whose statistics do not keep the scale
            nn.init.kaiming_normal_(parameter)
    return network


def targets(name, n):
    """Targets of n images, in each network's own terms."""
    torch.manual_seed(1)
    if name in published.SMALL:
        return published.targets(name, n)
    if name == GANIMATION:
        return torch.rand(n, 17)
    if name == ATTGAN:
        return torch.randint(2, (n, 13)) - 0.5
    if name == STARGAN_V2:
        return small(name).style_of_latent(torch.randn(n, 4), torch.arange(n) % 2).detach()
    return torch.eye(5)[:n] if name == STARGAN else torch.zeros(n, 1)


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


@pytest.mark.parametrize("name", [STARGAN, CYCLEGAN, STARGAN_V2, *published.SMALL])
@pytest.mark.parametrize("n", [1, 3])
def test_the_quick_layout_gives_the_same_edits_and_gradients(name, n):
    slow = small(name).double()
    quick = frozen(copy.deepcopy(slow), torch.device("cpu"))
    target = targets(name, n).double()
    noise = torch.rand(n, 3, 64, 64).double() * 2 - 1  # a photo has ties for max-pooling to break
    results = []
    for network in (slow, quick):
        x = noise.clone().requires_grad_()
        y = network(x, target)
        (gradient,) = torch.autograd.grad(y.square().sum(), x)
        results.append((y.detach(), gradient))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


DOORS = {  # one reader of weights behind them
    "shipped generator": partial(load_generator, "stargan-celeba128-w32"),
    "published generator": partial(load_generator, CYCLEGAN),
    "shipped saliency": partial(load_saliency, "pfan-light"),
    "published saliency": partial(load_saliency, "pfan-duts"),
}
every_door = pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@every_door
def test_code_in_a_pickle_is_never_executed(door, tmp_path):
    sprung = tmp_path / "sprung"
    torch.save({"main.0.weight": Trap(sprung)}, tmp_path / "a.ckpt")
    torch.save({"model": Trap(sprung)}, tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "c.pkl").write_bytes(pickle.dumps({"model": Trap(sprung)}, protocol=2))
    for name in ("a.ckpt", "b.pth", "c.pkl"):
        with pytest.raises(SalattackError, match=r"not executed|not a readable weights file"):
            door(tmp_path / name)
    assert not sprung.exists()


@every_door
def test_unusable_files_are_refused(door, tmp_path):
    with pytest.raises(SalattackError, match="no weights file at"):
        door(tmp_path / "none.safetensors")
    damaged = {"a.safetensors": b"nonsense", "a.ckpt": b"nonsense", "b.ckpt": b"", "c.ckpt": b"PK"}
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SalattackError, match=name):
            door(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(SalattackError, match="does not hold a state dict but a list"):
        door(tmp_path / "list.ckpt")
    torch.save({f"{key}.weight": torch.zeros(1) for key in "abcd"}, tmp_path / "bad.ckpt")
    with pytest.raises(SalattackError, match=r"bad.ckpt does not fit .*: Missing key.* …"):
        door(tmp_path / "bad.ckpt")


def test_misfits_are_named():
    state = StarGAN(conv_dim=8).state_dict()
    state["main.6.weight"] = state.pop("main.3.weight")
    misfits = r'Missing key.*: "main.3.weight". size mismatch for main.6.weight: '
    with pytest.raises(SalattackError, match=misfits):
        fit(StarGAN(conv_dim=8), state, "small")
    with pytest.raises(SalattackError, match=r'Unexpected key.* "head"'):
        fit(StarGAN(), StarGAN().state_dict() | {"head": torch.zeros(1)}, "small")


def test_a_tampered_shipped_file_is_refused(tmp_path, monkeypatch):
    entry = GENERATORS["stargan-celeba128-w32"]
    content = bytearray((SHIPPED_WEIGHTS / entry.file).read_bytes())
    content[-1] ^= 1
    (tmp_path / entry.file).write_bytes(content)
    monkeypatch.setattr(weights, "SHIPPED_WEIGHTS", tmp_path)
    with pytest.raises(SalattackError, match="is damaged: sha256"):
        entry.load()
    loaded = entry.load(tmp_path / entry.file, "cpu")  # one's own file is one's own
    assert loaded.sha256 == hashlib.sha256(content).hexdigest() != entry.sha256


@pytest.mark.parametrize(
    ("registry", "name"),
    [(GENERATORS, "cyclegan-blond128-w32"), (SALIENCY_MODELS, "pfan-light")],
)
def test_one_look_up_gives_all_that_belongs_to_a_network(registry, name):
    entry = registry[name]
    assert registry.get("dalle") is None
    loaded = entry.load(device="cpu")
    assert (loaded.edits, loaded.image_size) == (entry.edits, entry.image_size)
    assert loaded.sha256 == sha256(SHIPPED_WEIGHTS / entry.file)
    assert not any(p.requires_grad for p in loaded.network.parameters())


# Parameters of the published networks. CycleGAN's is what its authors' code prints (issue 169 of
# junyanz/pytorch-CycleGAN-and-pix2pix); the others were counted on the networks of the authors'
# code (clovaai/stargan-v2, albertpumarola/GANimation) and of elvisyjlin/AttGAN-PyTorch.
@pytest.mark.parametrize(
    ("build", "part", "count"),
    [
        (CycleGAN, "", 11_378_179),
        (StarGANv2, "generator.", 43_467_395),
        (StarGANv2, "mapping_network.", 2_438_272),
        (StarGANv2, "style_encoder.", 20_916_928),
        (lambda: StarGANv2(high_pass=False, domains=3), "generator.", 33_892_995),
        (lambda: StarGANv2(high_pass=False, domains=3), "mapping_network.", 3_259_072),
        (lambda: StarGANv2(high_pass=False, domains=3), "style_encoder.", 20_949_760),
        (GANimation, "", 8_471_296),
        (AttGAN, "", 43_459_203),
        (lambda: AttGAN(inject=False), "", 43_352_707),
    ],
)
def test_published_counts(build, part, count):
    with torch.device("meta"):  # shapes alone
        parameters = build().named_parameters()
    assert sum(p.numel() for name, p in parameters if name.startswith(part)) == count


# Names and shapes of the same sources.
@pytest.mark.parametrize(
    ("build", "shapes"),
    [
        (
            CycleGAN,
            {
                "model.1.weight": (64, 3, 7, 7),
                "model.7.bias": (256,),
                "model.10.conv_block.1.weight": (256, 256, 3, 3),
                "model.18.conv_block.5.bias": (256,),
                "model.19.weight": (256, 128, 3, 3),
                "model.26.weight": (3, 64, 7, 7),
            },
        ),
        (
            StarGANv2,
            {
                "generator.from_rgb.weight": (64, 3, 3, 3),
                "generator.encode.2.conv1x1.weight": (512, 256, 1, 1),
                "generator.encode.6.norm2.bias": (512,),
                "generator.decode.4.norm2.fc.weight": (512, 64),
                "generator.decode.6.conv1x1.weight": (64, 128, 1, 1),
                "generator.to_rgb.2.weight": (3, 64, 1, 1),
                "generator.hpf.filter": (3, 3),
                "mapping_network.shared.0.weight": (512, 16),
                "mapping_network.unshared.1.6.weight": (64, 512),
                "style_encoder.shared.6.conv2.weight": (512, 512, 3, 3),
                "style_encoder.shared.8.weight": (512, 512, 4, 4),
                "style_encoder.unshared.0.weight": (64, 512),
            },
        ),
        (
            GANimation,
            {
                "main.0.weight": (64, 20, 7, 7),
                "main.14.main.3.weight": (256, 256, 3, 3),
                "main.19.bias": (64,),
                "img_reg.0.weight": (3, 64, 7, 7),
                "attetion_reg.0.weight": (1, 64, 7, 7),
            },
        ),
        (
            AttGAN,
            {
                "enc_layers.0.layers.0.weight": (64, 3, 4, 4),
                "enc_layers.4.layers.1.running_var": (1024,),
                "dec_layers.0.layers.0.weight": (1037, 1024, 4, 4),
                "dec_layers.1.layers.0.weight": (1549, 512, 4, 4),
                "dec_layers.4.layers.0.bias": (3,),
            },
        ),
    ],
)
def test_published_names_and_shapes(build, shapes):
    with torch.device("meta"):
        state = build().state_dict()
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


def old_statistics(network):
    """What InstanceNorm2d of old PyTorch wrote beside the parameters."""
    return {
        f"{name}.{key}": torch.rand(module.num_features)
        for name, module in network.named_modules()
        if isinstance(module, nn.InstanceNorm2d)
        for key in ("running_mean", "running_var")
    }


def as_published(name, network):
    """The state dict in the wrapper that the publishers' code saves, with what else is in it."""
    state = network.state_dict()
    if name == CYCLEGAN:
        return state | old_statistics(network)
    if name == GANIMATION:  # trained on several GPUs
        return {f"module.{key}": value for key, value in (state | old_statistics(network)).items()}
    if name == ATTGAN:  # PyTorch 0.4.0 had no counters
        kept = {k: v for k, v in state.items() if "num_batches_tracked" not in k}
        return {"G": kept, "D": {"fc.weight": torch.zeros(2)}, "optim_G": {"state": {}}}
    parts = {part: getattr(network, part).state_dict() for part in dict(network.named_children())}
    return parts | {"fan": {"conv1.weight": torch.zeros(2)}}


@every_adapter
@pytest.mark.parametrize("legacy", [True, False])
def test_published_files_load(name, legacy, tmp_path, photos):
    network = small(name)
    file = tmp_path / "published.pth"
    torch.save(as_published(name, network), file, _use_new_zipfile_serialization=not legacy)
    loaded = load_generator(name, weights=file, device="cpu")
    target = targets(name, 3)
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(state, tmp_path / "own.safetensors")
    network = frozen(network, torch.device("cpu"))
    with torch.no_grad():
        assert torch.equal(loaded(photos, target), network(photos, target))
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    again = load_generator(name, weights=tmp_path / "own.safetensors", device="cpu")
    with torch.no_grad():
        assert torch.equal(again(photos, target), network(photos, target))


def test_ganimation_takes_the_reimplementation_s_file(tmp_path, photos):
    network, state = small(GANIMATION), {}
    for key, value in network.state_dict().items():
        if value.ndim == 1:
            continue  # its normalisations have no parameters, its convolutions have biases
        theirs = key.replace(".main.", ".conv_block.").replace("main.", "model.", 1)
        theirs = theirs.replace("img_reg", "color_top").replace("attetion_reg", "au_top")
        state[theirs] = value
        if "top" not in theirs:
            channels = value.shape[1 if key.split(".")[1] in ("11", "14") else 0]
            state[theirs.replace("weight", "bias")] = torch.randn(channels)
    assert "model.9.conv_block.3.bias" in state and "color_top.0.weight" in state
    torch.save(state, tmp_path / "30_net_gen.pth")
    loaded = load_generator(GANIMATION, tmp_path / "30_net_gen.pth", "cpu")
    target = targets(GANIMATION, 3)
    with torch.no_grad():
        assert (loaded(photos, target) - network(photos, target)).abs().max() < 1e-4


@pytest.mark.parametrize("high_pass", [True, False])
def test_stargan_v2_s_depth_follows_the_file(high_pass, tmp_path, photos):
    network = StarGANv2(4, 8, 128, style_dim=8, domains=3, hidden=8, high_pass=high_pass)
    torch.save(as_published(STARGAN_V2, network), tmp_path / "nets.ckpt")
    loaded = load_generator(STARGAN_V2, tmp_path / "nets.ckpt", "cpu")
    assert (loaded.divisor, loaded.image_size) == (8 * 2**high_pass, 128)
    assert loaded.style_of_latent(torch.randn(2, 16), torch.tensor([0, 2])).shape == (2, 8)


def test_a_file_of_another_architecture_is_refused(tmp_path):
    save_file(StarGAN(conv_dim=8).state_dict(), tmp_path / "stargan.safetensors")
    for name in (CYCLEGAN, GANIMATION):
        with pytest.raises(SalattackError, match=r"stargan.safetensors does not fit .*: Missing"):
            load_generator(name, weights=tmp_path / "stargan.safetensors", device="cpu")


@every_adapter
def test_published_files_are_asked_for(name, tmp_path, monkeypatch):
    monkeypatch.setenv("SALATTACK_CACHE", str(tmp_path))
    with pytest.raises(SalattackError, match=f"run `salattack assets fetch {name}`"):
        load_generator(name)


@every_network
def test_edits_follow_the_target_and_not_the_batch(name, photos):
    network, target = small(name), targets(name, 3)
    with torch.no_grad():
        fakes = network(photos, target)
        alone = torch.cat([network(photos[i : i + 1], target[i : i + 1]) for i in range(3)])
        other = network(photos, -target)
    assert fakes.shape == photos.shape and fakes.abs().max() <= 1
    assert (fakes - alone).abs().max() < 1e-4
    ignored = name in (CYCLEGAN, published.SHINKAI, published.ANIME)
    assert torch.equal(fakes, other) == ignored


@every_network
def test_bfloat16_arithmetic_gives_about_the_same(name, photos):
    network, target = small(name), targets(name, 3)
    with torch.no_grad():
        fine = network(photos, target)
        with torch.autocast("cpu", torch.bfloat16):
            coarse = network(photos, target).float()
    assert 0 < (coarse - fine).abs().mean() < 0.05


@every_network
def test_the_image_itself_is_never_rounded_to_bfloat16(name, photos):
    network = small(name)
    first = next(m for m in network.modules() if isinstance(m, torch.nn.Conv2d))
    seen = []
    first.register_forward_hook(lambda _, given, result: seen.append((given[0], result)))
    with torch.autocast("cpu", torch.bfloat16):
        network(photos, targets(name, 3))
    assert {x.dtype for pair in seen for x in pair} == {torch.float32}


def bounded(attack, change, photo, result):
    if attack.colours == "rgb":
        return change.abs().max() <= attack.bound + 1e-6
    lab, clean = (rgb_to_lab((x.double() + 1) / 2) for x in (result, photo))
    return ((lab - clean)[:, 1:] / 128).abs().max() <= attack.bound + 0.02  # gamut clips


@every_network
@pytest.mark.slow
@pytest.mark.parametrize("preset", ATTACKERS)
def test_every_attacker_on_every_adapter(name, preset, photos, saliency_map):
    network, target, photo = small(name), targets(name, 1), photos[:1]
    before = {key: value.clone() for key, value in network.state_dict().items()}
    attack = attacker(preset, steps=1 if ATTACKERS[preset].blur_schedule == "mean" else 2)
    region = saliency_map[:1] if attack.region == "saliency" else None
    result = attack(network, photo, target, region)
    change = result - photo
    assert bounded(attack, change, photo, result) and result.abs().max() <= 1
    assert (change != 0).float().mean() > 0.01
    with torch.no_grad():
        assert not torch.equal(network(result, target), network(photo, target))
    assert all(torch.equal(network.state_dict()[key], value) for key, value in before.items())
    assert all(p.grad is None for p in network.parameters())


@every_network
def test_an_attack_does_more_than_noise(name, photos):
    network, target, photo = small(name), targets(name, 1), photos[:1]
    attack = attacker("i-fgsm", steps=5)
    result = attack(network, photo, target)
    noise = torch.randn(photo.shape, generator=torch.Generator().manual_seed(0)).sign()
    noisy = (photo + attack.bound * noise).clamp(-1, 1)
    with torch.no_grad():
        clean, broken, chance = (network(x, target) for x in (photo, result, noisy))
    assert (broken - clean).square().mean() > 2 * (chance - clean).square().mean()


def test_ganimation_keeps_the_photo_where_attention_is_one(photos):
    network, target = small(GANIMATION), targets(GANIMATION, 3)
    network.attetion_reg[0] = nn.Conv2d(8, 1, 7, 1, 3)
    nn.init.constant_(network.attetion_reg[0].weight, 0.0)
    for bias, expected in ((100.0, photos), (-100.0, None)):
        nn.init.constant_(network.attetion_reg[0].bias, bias)
        with torch.no_grad():
            fakes = network(photos, target)
        assert torch.allclose(fakes, photos, atol=1e-6) == (expected is not None)


def test_stargan_v2_styles_and_masks(photos):
    network = small(STARGAN_V2)
    domains = torch.tensor([0, 1, 0])
    latent = torch.randn(1, 4).expand(3, -1)
    by_latent = network.style_of_latent(latent, domains)
    assert torch.equal(by_latent[0], by_latent[2]) and not torch.equal(by_latent[0], by_latent[1])
    by_reference = network.style_of_reference(photos, domains)
    assert by_reference.shape == by_latent.shape == (3, 8)
    nothing, all_of_it = ([torch.full((3, 1, 64, 64), v)] * 2 for v in (0.0, 1.0))
    with torch.no_grad():
        plain = network(photos, by_reference)
        assert torch.equal(network(photos, by_reference, masks=nothing), plain)
        assert not torch.equal(network(photos, by_reference, masks=all_of_it), plain)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: small(CYCLEGAN)(x[..., :30], None), "multiples of 4, got 30×64; choose another"),
        (lambda x: small(ATTGAN)(x[..., :48], targets(ATTGAN, 3)), "multiples of 32, got 48×64"),
        (lambda x: small(STARGAN_V2)(x[..., :60], targets(STARGAN_V2, 3)), "multiples of 8"),
        (lambda x: small(ATTGAN)(x, torch.eye(5)[:3]), r"target of \(3, 13\), .*, got \(3, 5\)"),
        (lambda x: small(ATTGAN)(x, None), "got NoneType"),
        (lambda x: small(STARGAN)(x[..., :62], torch.eye(5)[:3]), "multiples of 4, got 62×64"),
        (
            lambda x: small(STARGAN)(x, torch.eye(4)[:3]),
            r"target of \(3, 5\), labels.*got \(3, 4\)",
        ),
        (lambda x: small(GANIMATION)(x, torch.eye(5)[:3]), r"target of \(3, 17\), action units"),
        (lambda x: small(STARGAN_V2)(x, torch.eye(5)[:3]), "style codes .*style_of_latent"),
        (lambda x: small(STARGAN_V2).style_of_reference(x[:, :, :32], torch.zeros(3)), "be 64×64"),
        (
            lambda x: small(STARGAN_V2).style_of_reference(x, torch.tensor([0, 1, 2])),
            r"a whole number from 0 to 1, got \[0, 1, 2\]",
        ),
        (lambda x: small(STARGAN_V2).style_of_latent(x[0, 0, :, :4], torch.zeros(3)), "of the 64"),
        (
            lambda x: StarGANv2(4, 8, 64, 8, high_pass=False)(x, torch.zeros(3, 8), masks=[x, x]),
            "no high pass: leave out the masks",
        ),
        (lambda x: Ensemble(), "at least one generator"),
        (lambda x: Ensemble(small(CYCLEGAN))(x, [None, None]), "has 1 members, 2 targets were"),
    ],
)
def test_mistakes_are_one_sentence(call, message, photos):
    with pytest.raises(SalattackError, match=message):
        call(photos)


def test_an_ensemble_s_loss_is_the_mean_of_its_members(generator, photos, target):
    members = (generator, small(CYCLEGAN), small(GANIMATION))
    own = [target, None, targets(GANIMATION, 3)]
    ensemble, x = Ensemble(*members), photos.clone().requires_grad_()
    fakes = ensemble(x, own)
    assert fakes.shape == (3, 9, 64, 64)
    both = fakes.square().mean()
    apart = sum(g(x, t).square().mean() for g, t in zip(members, own, strict=True)) / 3
    first, second = (torch.autograd.grad(loss, x)[0] for loss in (both, apart))
    assert torch.allclose(first, second, atol=1e-7)
    with torch.no_grad():
        shared = Ensemble(generator, small(CYCLEGAN))(photos, target)
        assert torch.equal(shared[:, :3], generator(photos, target))


def test_an_attack_on_an_ensemble_breaks_every_member(generator, photos, target):
    photos, target = photos[:1], target[:1]
    own = [target, target.flip(1)]
    attack = attacker("i-fgsm", steps=4)
    noise = torch.randn(photos.shape, generator=torch.Generator().manual_seed(0)).sign()
    noisy = (photos + attack.bound * noise).clamp(-1, 1)
    result = attack(Ensemble(generator, generator), photos, own)
    assert (result - photos).abs().max() <= attack.bound + 1e-6
    for one in own:
        with torch.no_grad():
            clean, broken, chance = (generator(x, one) for x in (photos, result, noisy))
        assert (broken - clean).square().mean() > 2 * (chance - clean).square().mean()


def test_an_ensemble_in_a_study_of_several_edits(generator, photos, target):
    photos, target = photos[:1], target[:1]
    study = open_study(n_images=1, image_size=64, device="cpu")
    study = replace(study, generator=Ensemble(generator, small(CYCLEGAN)))
    edits = (target, target.flip(1))
    assert study.generate(photos, edits).shape == (1, 12, 64, 64)
    saliency_map = study.saliency_map(photos)
    result = study.disrupt(photos, edits, attacker("saliency-aware", steps=1), saliency_map)
    assert not torch.equal(result, photos)


@every_adapter
def test_a_study_takes_them_by_name_at_their_size(name, tmp_path):
    torch.save(as_published(name, small(name)), tmp_path / "own.pth")
    study = open_study(generator=name, generator_weights=str(tmp_path / "own.pth"), device="cpu")
    assert study.faces.image_size == int(name.rsplit("-", 1)[1])
    assert study.origin["generator"][0] == name


def study_of(name, n_images=2):
    study = open_study(n_images=n_images, image_size=64, device="cpu")
    return replace(study, generator=small(name), edits=edits_of(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", [STARGAN, *ADAPTERS, *published.SMALL])
def test_tables_and_figures_ask_for_the_edits_that_a_generator_makes(name):
    study, names = study_of(name), edits_of(name).names
    attacks = attackers(["i-fgsm", "saliency-aware"], 0.05, 0.05, 1)
    rows = evaluate(study, attacks, targets="all", progress=False)
    assert set(rows["attribute"]) == set(names)
    assert len(rows) == 2 * len(names) * len(attacks) * 2  # faces × edits × attackers × precisions
    assert (rows["damage_l2"] > 0).all()
    turned = evaluate(study, attacks, targets="rotate", progress=False)
    assert list(turned["attribute"].unique()) == list(names[:2])
    edits = edit_faces(study, attacks["saliency-aware"])
    assert edits.names == names and edits.fakes.shape == (2, len(names), 3, 64, 64)
    figure = attribute_visualization(
        edits.photos, edits.fakes, edits.perturbed[:, 0], edits.broken, edits.names
    )
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["Input", *map(edit_label, names)]
    left = remaining_damage(study, attacks, {}, progress=False)
    assert (left.loc[left["transform"] == TWICE, "damage_l2"] > 0).all()
    matrix = across(study, each_edit(study), attacks["i-fgsm"], in_turn=True, progress=False)
    assert matrix.columns.tolist() == list(names)


def test_the_targets_of_each_kind():
    labels = torch.tensor([[1.0, 0, 0, 0, 1], [0.0, 0, 1, 1, 1]])  # black hair; a brown-haired man
    columns = edits_of(ATTGAN).targets(None, labels, ["Blond_Hair", "Male"]).T
    row = dict(zip(attgan.ATTRIBUTES_13, columns, strict=True))
    assert row["Blond_Hair"].tolist() == [1.0, -0.5] and row["Brown_Hair"].tolist() == [-0.5, 0.5]
    assert row["Black_Hair"].tolist() == [-0.5, -0.5] and row["Male"].tolist() == [-0.5, -1.0]
    assert row["Young"].tolist() == [0.5, 0.5] and row["Bald"].tolist() == [-0.5, -0.5]
    units = edits_of(GANIMATION).targets(None, labels, ["Happy", "Sad"])
    raised = [[ganimation.ACTION_UNITS[i] for i in row.nonzero().flatten()] for row in units]
    assert raised == [[6, 12], [1, 4, 15]]
    g = small(STARGAN_V2)
    both = edits_of(STARGAN_V2).targets(g, labels, ["joint"] * 2)
    assert [one.shape for one in both] == [(2, 8), (2, 8)]
    assert not torch.equal(both[0][0], both[1][0]) and torch.equal(both[0][0], both[0][1])


EDITS_OF_KIND = {  # edits whose targets are no vectors
    "class index": lambda g, labels, edit: torch.full((len(labels),), int(edit)),
    "reference image": lambda g, labels, edit: torch.full((len(labels), 3, 64, 64), float(edit)),
}


@pytest.mark.parametrize("kind", EDITS_OF_KIND)
def test_a_target_may_be_of_any_kind(kind):
    def g(images, target):
        assert target.shape[1:] == ((3, 64, 64) if kind == "reference image" else ())
        assert len(target) == len(images)
        amount = target.flatten(1).mean(1) if target.ndim > 1 else target
        return torch.tanh(images * (1 + amount)[:, None, None, None])

    edits = EditSet(("1", "2", "3"), EDITS_OF_KIND[kind])
    study = replace(open_study(n_images=2, image_size=64, device="cpu"), generator=g, edits=edits)
    photos, labels, _ = next(study.batches(2))
    apart = [study.generate(photos, study.targets(labels, [name] * 2)) for name in edits.names]
    joint = study.targets(labels, ["joint"] * 2)
    assert torch.equal(study.generate(photos, joint), torch.cat(apart, 1))
    assert torch.equal(study.generate(photos, study.targets(labels, ["1", "3"]))[1], apart[2][1])
    attacks = attackers(["i-fgsm", "saliency-aware", "class-iterative"], 0.05, 0.05, 2)
    for aim in ("rotate", "joint"):
        rows = evaluate(study, attacks, targets=aim, progress=False)
        assert len(rows) == 2 * 3 * 2 and (rows["damage_l2"] > 0).all()
        rows = remaining_damage(study, attacks, {}, targets=aim, progress=False)
        assert (rows["damage_l2"] > 0).all()
    matrix = across(study, each_edit(study), attacks["i-fgsm"], in_turn=True, progress=False)
    assert (matrix > 0).all(axis=None)
    protector = Protector(
        generator=g,
        saliency=study.saliency,
        image_size=64,
        strength="normal",
        attack=attack_of("normal"),
        device=study.device,
        edits=edits,
    )
    assert torch.equal(protector.fakes(photos[:1]), torch.stack(apart, 1)[0])


@pytest.mark.parametrize(
    ("name", "edit", "known"),
    [
        (CYCLEGAN, "Blond_Hair", "Van_Gogh"),
        (GANIMATION, "Male", "Happy, Sad, Surprised, Angry"),
        (STARGAN, "Smiling", "Black_Hair"),
    ],
)
def test_an_edit_that_a_generator_does_not_make_is_refused(name, edit, known):
    study = study_of(name, 1)
    with pytest.raises(SalattackError, match=f"unknown edit '{edit}'; known: {known}"):
        study.targets(torch.zeros(1, 5), [edit])
    with pytest.raises(SalattackError, match=f"unknown target '{edit}'; known: rotate.*{known}"):
        evaluate(study, attackers(["i-fgsm"], 0.05, 0.01, 1), targets=edit, progress=False)
    with pytest.raises(SalattackError, match="unknown edit to aim at"):
        edit_faces(study, attacker("i-fgsm"), aimed_at=edit)
    with pytest.raises(SalattackError, match="unknown generator 'dalle'"):
        edits_of("dalle")
