import math

import pytest
import torch

from salattack.images import as_saved
from salattack.metrics import fake_damage, feature_distance, photo_change
from salattack.saliency import load_saliency


def test_a_known_change_is_measured(photos):
    region = torch.zeros(3, 1, 64, 64)
    region[..., :32] = 1  # left half salient
    perturbed = photos.clamp(-0.9, 0.9)
    changed = perturbed.clone()
    changed[..., :32] += 0.1
    change = photo_change(perturbed, changed, region)
    assert change["l1"].numpy() == pytest.approx(0.05, rel=1e-4)
    assert change["l2"].numpy() == pytest.approx(0.005, rel=1e-3)
    assert change["linf"].numpy() == pytest.approx(0.1, rel=1e-4)
    assert change["psnr"].numpy() == pytest.approx(10 * math.log10(4 / 0.005), abs=0.01)
    assert (change["background_l1"] == 0).all() and (change["background_linf"] == 0).all()
    assert (change["background_psnr"] == torch.inf).all()
    assert (change["ssim"] < 1).all() and (change["background_ssim"] > change["ssim"]).all()


def test_psnr_and_ssim_agree_with_torchmetrics(photos):
    from torchmetrics.functional.image import (
        peak_signal_noise_ratio,
        structural_similarity_index_measure,
    )

    noisy = (photos + 0.1 * torch.randn(photos.shape, generator=torch.manual_seed(0))).clamp(-1, 1)
    change = photo_change(photos, noisy, torch.ones(3, 1, 64, 64))
    for i in range(3):
        one, other = noisy[i : i + 1], photos[i : i + 1]
        psnr = peak_signal_noise_ratio(one, other, data_range=(-1.0, 1.0))
        ssim = structural_similarity_index_measure(one, other, data_range=(-1.0, 1.0))
        assert change["psnr"][i].item() == pytest.approx(psnr.item(), rel=1e-4)
        # torchmetrics averages without the border; the mask needs the whole image.
        assert change["ssim"][i].item() == pytest.approx(ssim.item(), abs=0.02)


def test_an_image_without_background_has_no_background_figures(photos):
    change = photo_change(photos, photos * 0.9, torch.ones(3, 1, 64, 64))
    for name, values in change.items():
        assert torch.isnan(values).all() == name.startswith("background_"), name


def test_no_change_is_zero(photos, saliency_map):
    change = photo_change(photos, photos, saliency_map)
    assert (change["l1"] == 0).all() and (change["l2"] == 0).all()
    assert change["ssim"].numpy() == pytest.approx(1)


def test_damage_and_its_threshold(photos):
    fake = photos.clamp(-0.7, 0.7)
    for shift, broken in ((0.2, 0.0), (0.25, 1.0)):  # 0.04 and 0.0625 around 0.05
        damage = fake_damage(fake, fake + shift)
        assert damage["damage_l1"].numpy() == pytest.approx(shift, rel=1e-4)
        assert damage["damage_l2"].numpy() == pytest.approx(shift**2, rel=1e-3)
        assert (damage["success"] == broken).all()


def test_damage_where_the_edit_is_and_what_is_left_of_it(photos):
    fake = photos.clone()
    fake[..., :32] = (photos[..., :32] + 1) / 2  # the edit is in the left half
    left, right = fake.clone(), fake.clone()
    left[..., :32] -= 0.2
    right[..., 32:] -= 0.2
    for broken, where in ((left, 0.04), (right, 0.0)):
        damage = fake_damage(fake, broken, photos)
        assert damage["damage_edited"].numpy() == pytest.approx(where, rel=1e-3)
        assert damage["damage_l2"].numpy() == pytest.approx(0.02, rel=1e-3)
    assert (fake_damage(fake, photos, photos)["edit_left"] == 0).all()
    assert fake_damage(fake, fake, photos)["edit_left"].numpy() == pytest.approx(1)


def test_damage_of_several_edits_is_their_mean(photos):
    features = load_saliency(device="cpu").feature_maps
    pairs = [(photos * 0.9, photos * 0.7), (photos * 0.5, photos * 0.8)]
    alone = [fake_damage(*pair, photos, features) for pair in pairs]
    fakes, broken = (torch.cat(images, 1) for images in zip(*pairs, strict=True))
    both = fake_damage(fakes, broken, photos, features)
    for measure in ("damage_l1", "damage_l2", "damage_features"):
        mean = sum(a[measure] for a in alone) / 2
        assert both[measure].numpy() == pytest.approx(mean.numpy(), rel=1e-4), measure


def test_saving_rounds_to_eight_bits_and_keeps_eight_bit_photos(photos):
    assert torch.equal(as_saved(photos), photos)
    saved = as_saved(photos * 0.77)
    assert ((saved + 1) * 127.5 - ((saved + 1) * 127.5).round()).abs().max() < 1e-4
    assert (saved - photos * 0.77).abs().max() <= 0.5 / 127.5 + 1e-6


def test_feature_distance_orders_pictures(photos):
    features = load_saliency(device="cpu").feature_maps
    noise = torch.randn(photos.shape, generator=torch.manual_seed(0))
    near, far = ((photos + s * noise).clamp(-1, 1) for s in (0.02, 0.3))
    assert (feature_distance(photos, photos, features) == 0).all()
    assert (
        feature_distance(photos, near, features) < feature_distance(photos, far, features)
    ).all()
