import warnings
from dataclasses import replace

import plain
import pytest
import torch
import torch.nn.functional as F
from kornia.color import rgb_to_lab

from salattack.attacks import Attack, UnmovedWarning, universal_perturbation
from salattack.blur import BLUR_FAMILY, GAUSSIAN, Blur
from salattack.errors import SalattackError
from salattack.images import as_saved, uniform_noise
from salattack.minimum_norm import UnbrokenWarning, least_damage
from salattack.presets import ATTACKERS, at_strength, attacker

BOUND = 0.05
# Every attacker as published, and with its region confined: the mask composes with all.
VARIANTS = ATTACKERS | {
    f"{name}, masked": replace(attack, region="saliency")
    for name, attack in ATTACKERS.items()
    if not attack.shared
}
VARIANTS |= {
    "on the iterate": attacker("spread-spectrum", blur_target="iterate", region="saliency"),
    "gradient masked": attacker("saliency-aware", gradient_at="masked"),
    "bound by saliency": attacker("saliency-aware", bound_by="saliency"),
    "along the gradient": attacker("saliency-aware", direction="gradient"),
    "in a ball": attacker("saliency-aware", radius=0.01),
    "with momentum": attacker("i-fgsm", momentum=1.0),
    "in l1": attacker("i-fgsm", loss="l1"),
    "minimum norm, blurred": attacker("minimum-norm", blurs=(GAUSSIAN,)),
    "minimum norm, in ab": attacker("minimum-norm", colours="ab"),
    "minimum norm, by sign": attacker("minimum-norm", direction="sign"),
    "minimum norm, flat": attacker("minimum-norm", norm="flat"),
    "by texture": attacker("i-fgsm", norm="texture"),
}
every_variant = pytest.mark.parametrize("name", VARIANTS)


def quick(name):
    """Four steps; EoT-Blur's nine blurs are as many gradients, so two."""
    attack = VARIANTS[name]
    steps = min(attack.steps, 2 if attack.blur_schedule == "mean" else 4)
    return replace(attack, steps=steps)


def run(attack, generator, photos, target, saliency_map):
    return attack(generator, photos, target, saliency_map if attack.region == "saliency" else None)


@pytest.fixture(scope="module")
def results(generator, photos, target, saliency_map):
    """Each variant's result, computed once for all the properties below."""
    cache = {}

    def result(name):
        if name not in cache:
            cache[name] = run(quick(name), generator, photos, target, saliency_map)
        return cache[name]

    return result


def change(name, result, photos):
    """The perturbation in the space that bounds it."""
    if VARIANTS[name].colours == "rgb":
        return result - photos
    lab, clean = (rgb_to_lab((x.double() + 1) / 2) for x in (result, photos))
    return (lab - clean)[:, 1:] / 128


@every_variant
def test_stays_within_the_bound_and_the_range(name, results, photos):
    result = results(name)
    slack = 1e-6 if VARIANTS[name].colours == "rgb" else 0.02  # colours out of gamut are clipped
    assert change(name, result, photos).abs().max() <= VARIANTS[name].bound + slack
    assert result.min() >= -1 and result.max() <= 1
    assert result.dtype == torch.float32 and result.shape == photos.shape
    if (radius := VARIANTS[name].radius) and VARIANTS[name].until is None:
        assert (change(name, result, photos).square().mean((1, 2, 3)).sqrt() <= radius + 1e-6).all()


@every_variant
def test_moves_every_image_and_raises_the_loss(name, results, generator, photos, target):
    result = results(name)
    assert ((result - photos).abs().flatten(1).amax(1) > 0.005).all()
    clean = generator(photos, target)
    assert (
        F.mse_loss(generator(result, target), clean, reduction="none").flatten(1).mean(1) > 1e-4
    ).all()


@pytest.mark.parametrize("name", [n for n, a in VARIANTS.items() if a.region == "saliency"])
def test_masked_out_pixels_keep_their_bits(name, results, photos, saliency_map):
    outside = (saliency_map == 0).expand_as(photos)
    assert 0.05 < outside.float().mean() < 0.95  # the test is not empty
    assert torch.equal(results(name)[outside], photos[outside])


def test_bound_by_saliency_limits_to_the_map(results, photos, saliency_map):
    moved = (results("bound by saliency") - photos).abs()
    assert (moved <= BOUND * saliency_map + 1e-6).all()


@every_variant
def test_same_seed_same_bits(name, results, generator, photos, target, saliency_map):
    again = run(quick(name), generator, photos, target, saliency_map)
    assert torch.equal(again, results(name))


@pytest.mark.parametrize("name", [n for n, a in VARIANTS.items() if a.start > 0])
def test_another_seed_another_start(name, results, generator, photos, target, saliency_map):
    other = run(replace(quick(name), seed=1), generator, photos, target, saliency_map)
    assert not torch.equal(other, results(name))


@pytest.mark.parametrize("name", [n for n, a in VARIANTS.items() if not a.shared])
def test_batch_equals_one_by_one(name, results, generator, photos, target, saliency_map):
    # Sums round differently in a batch, and sign() turns a rounding into a step where the
    # gradient is about zero: all but a few pixels must agree.
    attack = replace(quick(name), steps=1)
    small = 0.05 * (attack.bound if attack.step_size is None else attack.step_size)
    whole = run(attack, generator, photos, target, saliency_map)
    for i in range(len(photos)):
        one = run(attack, generator, photos[i : i + 1], target[i : i + 1], saliency_map[i : i + 1])
        differing = (one - whole[i : i + 1]).abs() > small
        assert differing.float().mean() < 0.002


def test_batch_equals_one_by_one_exactly_in_double(generator, photos, target):
    double = type(generator)(32)
    double.load_state_dict(generator.state_dict())
    double.double().requires_grad_(False)
    attack = attacker("pgd", steps=3)
    whole = attack(double, photos.double(), target.double())
    for i in range(len(photos)):
        one = attack(double, photos[i : i + 1].double(), target[i : i + 1].double())
        assert (one - whole[i : i + 1]).abs().max() < 1e-9


@pytest.mark.parametrize("name", [n for n, a in ATTACKERS.items() if a.steps > 1])
def test_more_steps_do_not_lower_the_damage(name, generator, photos, target, saliency_map):
    clean = generator(photos, target)

    def damage(steps):
        attack = replace(ATTACKERS[name], steps=steps)
        result = run(attack, generator, photos, target, saliency_map)
        return F.mse_loss(generator(result, target), clean).item()

    few, many = (1, 3) if ATTACKERS[name].blur_schedule == "mean" else (2, 8)
    assert damage(many) >= damage(few)


@pytest.mark.parametrize(
    "name", ["i-fgsm", "spread-spectrum", "eot-blur", "saliency-aware", "l2-pgd"]
)
def test_agrees_with_the_plain_loop(name, generator, photos, target, saliency_map):
    # In double precision: in single, each processor rounds otherwise, sign() makes whole steps of
    # that, and four of them drift apart by several per cent of the pixels.
    double = type(generator)(32)
    double.load_state_dict(generator.state_dict())
    double.double().requires_grad_(False)
    photos, saliency_map = (x[..., 32:96, 32:96].double() for x in (photos, saliency_map))
    strength = {"bound": BOUND, "step": 0.02, "steps": 2 if name == "eot-blur" else 4}
    attack = ATTACKERS[name].with_strength(BOUND, 0.02, strength["steps"])
    if attack.radius is not None:
        strength["radius"] = attack.radius
    ours = run(attack, double, photos, target.double(), saliency_map)
    for i in range(2):
        image, mask = photos[i : i + 1], saliency_map[i : i + 1]
        start = image + attack.start * uniform_noise(image, attack.seed)
        by_the_book = getattr(plain, name.replace("-", "_"))
        theirs = by_the_book(double, image, target[i : i + 1].double(), start, mask, **strength)
        assert (ours[i : i + 1] - theirs).abs().max() < 1e-6


def test_nullifying_brings_the_fake_back_to_the_photo(results, generator, photos, target):
    def apart(images):
        return F.mse_loss(generator(images, target), photos).item()

    left = apart(results("nullifying"))
    assert left < 0.7 * apart(photos) and left < 0.7 * apart(results("i-fgsm"))


def test_nullifying_several_edits_compares_each_to_the_photo(generator, photos, target):
    def two(images, targets):
        return torch.cat([generator(images, one) for one in targets.unbind(1)], 1)

    targets = torch.stack([target, target.flip(0)], 1)
    result = attacker("nullifying", steps=2)(two, photos, targets)
    pair = photos.repeat(1, 2, 1, 1)
    assert F.mse_loss(two(result, targets), pair) < F.mse_loss(two(photos, targets), pair)


def test_anti_forgery_keeps_the_lightness(results, photos):
    def lightness(images):
        return rgb_to_lab((images + 1) / 2)[:, 0]

    moved = {
        name: (lightness(results(name)) - lightness(photos)).abs().mean().item()
        for name in ("anti-forgery", "i-fgsm")
    }
    assert moved["anti-forgery"] < 0.1 * moved["i-fgsm"]


def test_a_universal_perturbation_is_one_for_all_and_works_on_others(generator, photos, target):
    attack = attacker("universal", steps=4)
    delta = universal_perturbation(attack, generator, photos[:2], target[:2])
    assert delta.shape == (1, 3, 64, 64) and 0 < delta.abs().max() <= attack.bound + 1e-6
    batch = attack(generator, photos[:2], target[:2])
    assert torch.equal(batch, (photos[:2] + delta).clamp(-1, 1))
    unseen, wanted = photos[2:], target[2:]
    noise = attack.bound * torch.randn(delta.shape, generator=torch.Generator().manual_seed(0))
    clean = generator(unseen, wanted)
    damage, chance = (
        F.mse_loss(generator((unseen + d).clamp(-1, 1), wanted), clean)
        for d in (delta, noise.sign() * attack.bound)
    )
    assert damage > 1.5 * chance
    with pytest.raises(SalattackError, match="needs shared=True"):
        universal_perturbation(attacker("pgd"), generator, photos, target)


def test_edits_in_turn_attack_one_an_iteration(generator, photos, target):
    seen = []

    def recorded(images, one):
        seen.append(one)
        return generator(images, one)

    targets = (target, target.flip(0))
    attack = attacker("class-iterative", steps=3)
    result = attack(recorded, photos, targets)
    order = [targets[k] for k in (0, 1, 0, 1, 0)]  # both references, then the three steps
    assert all(a is b for a, b in zip(seen, order, strict=True))
    for one in targets:
        assert F.mse_loss(generator(result, one), generator(photos, one)) > 1e-4


@pytest.mark.parametrize("target", [None, [None, None], torch.tensor([2, 0, 1])])
def test_one_edit_in_turn_takes_a_target_of_any_kind(target, photos):
    seen = []

    def recorded(images, one):
        seen.append(one)
        return images.square()

    attacker("class-iterative", steps=2)(recorded, photos, target)
    assert len(seen) == 3 and all(one is target for one in seen)


@pytest.mark.parametrize(
    "change",
    [
        {"blurs": (GAUSSIAN,), "blur_target": "iterate"},
        {"goal": "nullify"},
        {"direction": "gradient", "radius": 0.02, "momentum": 1.0},
    ],
)
def test_a_shared_perturbation_is_one_for_all_in_every_variant(change, generator, photos, target):
    attack = attacker("universal", steps=3, **change)
    delta = universal_perturbation(attack, generator, photos, target)
    assert delta.shape == (1, 3, 64, 64) and 0.005 < delta.abs().max() <= attack.bound
    result = attack(generator, photos, target)
    assert torch.equal(result, (photos + delta).clamp(-1, 1))
    reference = generator(photos, target) if attack.goal == "break" else photos
    before, after = (F.mse_loss(generator(x, target), reference) for x in (photos, result))
    assert after < before if attack.goal == "nullify" else after > 1e-4


def test_no_gradient_goes_back_to_images_and_map(generator, photos, target, saliency_map):
    attack = attacker("saliency-aware", steps=2, start=0.01)
    given = photos.clone().requires_grad_(), saliency_map.clone().requires_grad_()
    result = attack(generator, given[0], target, given[1])
    assert not result.requires_grad
    assert torch.equal(result, attack(generator, photos, target, saliency_map))


@pytest.mark.parametrize("name", [n for n, attack in ATTACKERS.items() if attack.until is None])
@pytest.mark.filterwarnings("ignore::salattack.attacks.UnmovedWarning")
def test_a_bound_of_zero_changes_nothing(name, generator, photos, target, saliency_map):
    attack = at_strength(name, 0, 0.01, 2)
    result = run(attack, generator, photos[:1], target[:1], saliency_map[:1])
    assert torch.equal(result, photos[:1])


def test_a_radius_cannot_be_scaled_from_a_bound_of_zero():
    with pytest.raises(SalattackError, match="a radius cannot be scaled from a bound of 0"):
        Attack(bound=0, radius=0.1).with_strength(0.05, 0.01, 10)


def test_i_fgsm_taken_literally_never_moves_and_says_so(generator, photos, target):
    with pytest.warns(UnmovedWarning, match="3 of 3 images came back unchanged"):
        result = attacker("i-fgsm", start=0.0)(generator, photos, target)
    assert torch.equal(result, photos)


def test_empty_region_is_said(generator, photos, target):
    nothing = torch.zeros(len(photos), 1, 64, 64)
    with pytest.warns(UnmovedWarning, match="unchanged"):
        result = attacker("saliency-aware", steps=1)(generator, photos, target, nothing)
    assert torch.equal(result, photos)


@every_variant
def test_a_constant_generator_moves_nothing_but_the_start(name, photos, target, saliency_map):
    attack = replace(quick(name), blur_target="loss")

    def constant(images, target):
        return torch.zeros_like(images)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnmovedWarning)
        result = run(attack, constant, photos, target, saliency_map)
    slack = 1e-6 if attack.colours == "rgb" else 1e-3
    assert change(name, result, photos).abs().max() <= attack.start + slack
    if attack.region == "saliency":
        outside = (saliency_map == 0).expand_as(photos)
        assert torch.equal(result[outside], photos[outside])


def test_one_step_fgsm_is_eq_8(generator, photos, target):
    attack = attacker("fgsm", start=0.0, blurs=(GAUSSIAN,))
    image = photos.clone().requires_grad_()
    clean = generator(photos, target)
    loss = F.mse_loss(generator(GAUSSIAN(image), target), clean)
    (gradient,) = torch.autograd.grad(loss, image)
    expected = (photos + 0.05 * gradient.sign()).clamp(-1, 1)
    assert (attack(generator, photos, target) - expected).abs().max() < 1e-6


def test_gradient_at_the_masked_iterate_is_another_attack(results):
    assert not torch.equal(results("gradient masked"), results("saliency-aware"))


def test_works_where_the_caller_switched_gradients_off(generator, photos, target):
    attack = attacker("i-fgsm", steps=2)
    with torch.no_grad():
        quiet = attack(generator, photos, target)
    assert torch.equal(quiet, attack(generator, photos, target)) and not quiet.requires_grad


def test_generator_is_left_alone(photos, target, generator):
    network = type(generator)(8)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    attacker("i-fgsm", steps=1)(network, photos, target)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.slow
def test_gradients_counted_are_gradients_taken(generator, photos, target, saliency_map):
    for name in ATTACKERS:
        attack, seen = quick(name), []
        region = saliency_map if attack.region == "saliency" else None
        attack(generator, photos, target, region, on_gradient=seen.append)
        assert sum(seen) == attack.gradients * len(photos)


def test_strength_keeps_what_makes_an_attacker():
    assert ATTACKERS["fgsm"].with_strength(0.1, 0.01, 10).steps == 1
    large = Attack(step_size=None, steps=5).with_strength(0.1, 0.01, 7)
    assert (large.step_size, large.steps) == (0.01, 7)
    assert ATTACKERS["pgd"].with_strength(0.1, 0.01, 7).start == 0.1
    assert ATTACKERS["i-fgsm"].with_strength(0.0005, 0.0001, 7).start == 0.0005
    whole = attacker("fgsm", start=0.05, radius=0.02).with_strength(0.1, 0.01, 10)
    assert (whole.start, whole.radius) == (0.1, 0.04)
    ours = at_strength("l2-pgd", 0.05, 0.01, 10)
    assert ours == ATTACKERS["l2-pgd"] and ours.bound == 0.2
    stronger = at_strength("l2-pgd", 0.1, 0.02, 10)
    assert stronger.radius == pytest.approx(2 * ours.radius)
    assert at_strength("i-fgsm", 0.05, 0.01, 10) == ATTACKERS["i-fgsm"]
    assert ATTACKERS["i-fgsm"].with_strength(0.1, 0.02, 7) == Attack(
        bound=0.1, step_size=0.02, steps=7, start=0.001
    )


SMALLEST = attacker("minimum-norm", steps=25, radius_step=0.2, until=0.02)  # quick, at 64 px


@pytest.fixture(scope="module")
def smallest(generator, photos, target, saliency_map):
    return SMALLEST(generator, photos, target, saliency_map)


def size(images, photos):
    return (as_saved(images) - photos).square().flatten(1).mean(1)


def test_the_smallest_change_breaks_every_fake_as_saved(
    smallest, generator, photos, target, saliency_map
):
    broken = generator(as_saved(smallest), target)
    reached = F.mse_loss(broken, generator(photos, target), reduction="none").flatten(1).mean(1)
    assert (reached > 0.02).all() and (reached < 0.03).all()
    torch.testing.assert_close(least_damage(generator, photos, smallest, target), reached)
    outside = (saliency_map == 0).expand_as(photos)
    assert torch.equal(as_saved(smallest)[outside], photos[outside])


def test_the_smallest_change_is_smaller_than_a_fixed_strength_that_breaks_as_much(
    smallest, generator, photos, target, saliency_map
):
    fixed = attacker("i-fgsm", region="saliency", bound=0.1)(
        generator, photos, target, saliency_map
    )
    assert (least_damage(generator, photos, fixed, target) > 0.02).all()
    assert (size(smallest, photos) < 0.8 * size(fixed, photos)).all()


def test_more_damage_costs_more_change(smallest, generator, photos, target, saliency_map):
    more = replace(SMALLEST, until=0.03)
    result = more(generator, photos, target, saliency_map)
    assert (least_damage(generator, photos, result, target) > 0.03).all()
    assert (size(result, photos) > size(smallest, photos)).all()


def test_each_image_has_its_own_radius(generator, photos, target):
    # In double precision: rounding to 8 bits turns a last digit into a whole step.
    double = type(generator)(32)
    double.load_state_dict(generator.state_dict())
    double.double().requires_grad_(False)
    attack = replace(SMALLEST, region="everywhere", steps=12, until=0.01)
    photos, target = photos[..., 16:80, 16:80].double(), target.double()
    whole = attack(double, photos, target)
    for i in range(len(photos)):
        one = attack(double, photos[i : i + 1], target[i : i + 1])
        assert (one - whole[i : i + 1]).abs().max() < 1e-6


def test_minimum_norm_agrees_with_the_plain_loop(generator, photos, target, saliency_map):
    double = type(generator)(32)
    double.load_state_dict(generator.state_dict())
    double.double().requires_grad_(False)
    photos, saliency_map = (x[..., 16:80, 16:80].double() for x in (photos, saliency_map))
    attack = replace(SMALLEST, steps=12, until=0.01)
    ours = attack(double, photos[:2], target[:2].double(), saliency_map[:2])
    for i in range(2):
        image, mask = photos[i : i + 1], saliency_map[i : i + 1]
        start = image + attack.start * mask * uniform_noise(image, attack.seed)
        theirs = plain.minimum_norm(
            double, image, target[i : i + 1].double(), start, plain.texture(image, mask),
            attack.step_size, attack.steps, attack.radius, attack.radius_step, attack.until * 1.001,
        )  # fmt: skip
        assert (ours[i : i + 1] - theirs).abs().max() < 1e-6


@pytest.mark.parametrize("edits", ["joint", "cycle"])
def test_of_several_edits_the_least_damaged_one_is_broken(edits, generator, photos, target):
    def each(images, targets):
        ways = targets if isinstance(targets, tuple) else (targets,)
        return torch.cat([generator(images, one) for one in ways], 1)

    targets = (target[:1], target.flip(0)[:1])
    attack = replace(SMALLEST, region="everywhere", edits=edits)
    result = attack(each, photos[:1], targets)
    reached = [least_damage(generator, photos[:1], result, one) for one in targets]
    assert torch.stack(reached).min() > 0.02
    assert least_damage(each, photos[:1], result, targets) == pytest.approx(min(reached), rel=1e-4)


def test_fakes_that_do_not_break_are_said_and_come_back_most_damaged(
    generator, photos, target, saliency_map
):
    attack = attacker("minimum-norm", steps=6, bound=0.02)
    with pytest.warns(UnbrokenWarning, match="3 of 3 fakes do not reach the damage 0.05"):
        result = attack(generator, photos, target, saliency_map)
    start = replace(attack, steps=1)
    with pytest.warns(UnbrokenWarning):
        first = start(generator, photos, target, saliency_map)
    reached, before = (least_damage(generator, photos, x, target) for x in (result, first))
    assert (reached < 0.05).all() and (reached > before).all()


def test_through_a_blur_the_sharp_picture_is_what_breaks(generator, photos, target, saliency_map):
    attack = replace(SMALLEST, blurs=(GAUSSIAN,))
    result = attack(generator, photos, target, saliency_map)
    assert (least_damage(generator, photos, result, target) > 0.02).all()


def test_strength_is_not_given_to_a_minimum_norm_attack():
    attack = attacker("minimum-norm")
    assert attack.with_strength(0.05, 0.01, 10) == attack


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bound": -0.1}, "bound must be ≥ 0"),
        ({"bound": float("nan")}, "bound must be ≥ 0"),
        ({"steps": 0}, "steps must be a whole number ≥ 1"),
        ({"steps": 2.5}, "steps must be a whole number ≥ 1"),
        ({"radius": -1.0}, "radius must be ≥ 0"),
        ({"radius": float("nan")}, "radius must be ≥ 0"),
        ({"step_size": 0.0}, "step_size must be > 0"),
        ({"start": -1.0}, "start must be between 0 and the bound 0.05, got -1"),
        ({"start": 0.2}, "start must be between 0 and the bound 0.05, got 0.2"),
        ({"region": "face"}, "unknown region 'face'; known: everywhere, saliency"),
        ({"loss": "lpips"}, "unknown loss 'lpips'; known: mse, l1, features"),
        ({"direction": "up"}, "unknown direction 'up'; known: sign, gradient"),
        ({"momentum": -1.0}, "momentum must be ≥ 0"),
        ({"blur_schedule": "x"}, "unknown blur_schedule 'x'; known: cycle, mean"),
        ({"gradient_at": "masked"}, "set region='saliency'"),
        ({"goal": "x"}, "unknown goal 'x'; known: break, nullify"),
        ({"edits": "x"}, "unknown edits 'x'; known: joint, cycle"),
        ({"colours": "hsv"}, "unknown colours 'hsv'; known: rgb, ab"),
        ({"shared": True, "region": "saliency"}, "a shared perturbation has no region"),
        ({"shared": True, "colours": "ab"}, "a shared perturbation has no region"),
        ({"until": 0.0, "radius": 0.1}, "until must be > 0"),
        ({"until": 0.05}, "until needs a radius"),
        ({"until": 0.05, "radius": 0.1, "goal": "nullify"}, "goal='break'"),
        ({"until": 0.05, "radius": 0.1, "shared": True}, "shared=False"),
        ({"shared": True, "norm": "texture"}, "norm='flat'"),
        ({"norm": "smooth"}, "unknown norm 'smooth'"),
        ({"radius_step": 1.0}, "radius_step must be between 0 and 1"),
        ({"speed": 3}, "unknown attack parameter 'speed'; known: bound, step_size"),
    ],
)
def test_refuses_bad_parameters(change, message):
    with pytest.raises(SalattackError, match=message):
        attacker("i-fgsm", **change)


def test_a_step_along_the_gradient_has_its_size_and_direction(generator, photos, target):
    attack = attacker("saliency-aware", direction="gradient", region="everywhere", steps=1)
    attack = replace(attack, bound=1.0, step_size=0.001)
    moved = attack(generator, photos, target) - photos
    inside = (photos.abs() < 0.95).all()  # nothing was clipped, or only there
    image = photos.clone().requires_grad_()
    clean = generator(photos, target)
    (g,) = torch.autograd.grad(F.mse_loss(generator(GAUSSIAN(image), target), clean), image)
    cosine = F.cosine_similarity(moved.flatten(1), g.flatten(1))
    assert (cosine > (0.999 if inside else 0.9)).all()
    assert moved.square().flatten(1).mean(1).sqrt() == pytest.approx(0.001, rel=0.2)


def test_momentum_keeps_the_steps_before(generator, photos, target):
    once = replace(attacker("i-fgsm", momentum=1.0), steps=1)
    assert torch.equal(
        once(generator, photos, target), replace(once, momentum=0.0)(generator, photos, target)
    )
    more = replace(once, steps=4)
    assert not torch.equal(
        more(generator, photos, target), replace(more, momentum=0.0)(generator, photos, target)
    )


def test_a_loss_on_features_needs_features(generator, photos, target):
    with pytest.raises(SalattackError, match="features belong to the loss 'features'"):
        attacker("i-fgsm", loss="features")(generator, photos, target)

    def colour(images):
        return images.mean((2, 3))

    attack = attacker("i-fgsm", loss="features", steps=2)
    result = attack(generator, photos, target, features=colour)
    clean, fake = (colour(generator(x, target)) for x in (photos, result))
    assert F.mse_loss(fake, clean) > 0


def test_refuses_an_unknown_attacker():
    with pytest.raises(SalattackError, match="unknown attacker 'bim'; known: fgsm, i-fgsm, pgd"):
        attacker("bim")


def test_refuses_bad_images(generator, photos, target):
    attack = attacker("i-fgsm", steps=1)
    broken = photos.clone()
    broken[0, 0, 0, 0] = torch.nan
    for images, message in (
        (broken, "NaN"),
        (photos * 255, r"must lie in \[-1, 1\]"),
        (photos[0], r"\(N, 3, H, W\)"),
        (photos[:, :1], r"\(N, 3, H, W\)"),
        (photos[:0], "no images"),
        (photos.bfloat16(), "float32 or float64, .* of torch.bfloat16"),
        (photos.half(), "float32 or float64, .* of torch.float16"),
    ):
        with pytest.raises(SalattackError, match=message):
            attack(generator, images, target)


def test_refuses_bad_maps(generator, photos, target, saliency_map):
    attack = attacker("saliency-aware", steps=1)
    for region, message in (
        (None, "needs a saliency_map"),
        (saliency_map[..., :32], r"the saliency_map is \(3, 1, 64, 32\), it must be"),
        (saliency_map * 3, r"must lie in \[0, 1\]"),
        (saliency_map * torch.nan, r"must lie in \[0, 1\]"),
    ):
        with pytest.raises(SalattackError, match=message):
            attack(generator, photos, target, region)
    with pytest.raises(SalattackError, match="takes no saliency_map"):
        attacker("i-fgsm")(generator, photos, target, saliency_map)


@pytest.mark.parametrize("blur", BLUR_FAMILY)
def test_blurs_agree_with_plain_convolution(blur, photos):
    if blur.kind == "gaussian":
        window = plain.gaussian_window(blur.kernel_size, blur.sigma)
    else:
        window = plain.average_window(blur.kernel_size)
    assert (blur(photos) - plain.blurred(photos, window)).abs().max() < 1e-5


def test_a_blur_keeps_a_constant_image():
    constant = torch.full((1, 3, 16, 16), 0.3)
    for blur in BLUR_FAMILY:
        assert (blur(constant) - 0.3).abs().max() < 1e-6


def test_weights_made_in_inference_mode_serve_gradients(photos):
    blur = Blur("gaussian", 9, 1.25)  # of no other test, so that the cache does not hold it
    with torch.inference_mode():
        blur(photos)
    image = photos.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(blur(image).square().sum(), image)
    assert (gradient != 0).any()


@pytest.mark.parametrize(
    "arguments", [("median", 3), ("gaussian", 4), ("gaussian", 0), ("gaussian", 11, 0.0)]
)
def test_refuses_bad_blurs(arguments):
    with pytest.raises(SalattackError):
        Blur(*arguments)


def test_refuses_images_below_the_blur(photos):
    with pytest.raises(SalattackError, match="needs images above 5 px"):
        GAUSSIAN(photos[..., :4, :4])
