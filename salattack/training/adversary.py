"""What makes StarGAN's training adversarial: the discriminator and its losses."""

import contextlib
import itertools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..generators import Generator

LAMBDA_PAIR = 25.0  # distance to the recorded output
LAMBDA_EDIT = 50.0  # the same between what differs among a face's edits
LAMBDA_FEATURE = 10.0  # the same in the discriminator's features
LAMBDA_SLOPE = 0.5  # image gradients, in each distance
LAMBDA_REC = 10.0  # reconstruction (StarGAN, Eq. 4 and 6)
LAMBDA_ADV = 0.5  # adversarial (StarGAN, Eq. 1)
LAMBDA_CLS = 0.2  # attribute classification (StarGAN, Eq. 2, 3, 5 and 6)
LAMBDA_R1 = 0.1  # gradient penalty on real pairs, in place of WGAN-GP's
EDITS = 3  # of each face in an adversarial batch; one of them is reconstructed
R1_EVERY = 16  # steps between two penalties, each weighted by as much


class Discriminator(nn.Module):
    """StarGAN's discriminator (Choi et al., CVPR 2018, Table 5): real or fake, and the labels.

    Args:
        image_size: side the classification head spans; larger images are averaged over.
        conv_dim: channels of the first layer; 64 as published.
        c_dim: number of attributes.
        repeat_num: layers, each halving the side.
        channels: of the input; 3 as published, 6 for an image beside the crop it was made from.
    """

    def __init__(
        self,
        image_size: int = 128,
        conv_dim: int = 64,
        c_dim: int = 5,
        repeat_num: int = 6,
        channels: int = 3,
    ) -> None:
        super().__init__()
        widths = [channels, *(conv_dim * 2**i for i in range(repeat_num))]
        self.main = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 4, 2, 1), nn.LeakyReLU(0.01))
            for a, b in itertools.pairwise(widths)
        )
        for layer, _ in self.main:  # torch's default shrinks the signal to nothing in six layers
            nn.init.kaiming_normal_(layer.weight, 0.01)
            nn.init.zeros_(layer.bias)
        self.source = nn.Conv2d(widths[-1], 1, 3, 1, 1, bias=False)
        kernel = image_size // 2**repeat_num
        self.attributes = nn.Conv2d(widths[-1], c_dim, kernel, bias=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Judge a batch.

        Args:
            images: (N, channels, H, W) in [-1, 1].

        Returns:
            (N, 1, h, w) scores per patch, higher for real; (N, c_dim) attribute logits; the
            features of each layer.
        """
        features = []
        for layer in self.main:
            images = layer(images)
            features.append(images)
        return self.source(images), self.attributes(images).mean((2, 3)), features


def gradient_penalty(discriminator: Discriminator, real: Tensor) -> Tensor:
    """R1 (Mescheder et al., ICML 2018): squared norm of the score's gradient at real images."""
    real = real.detach().requires_grad_()
    score = discriminator(real)[0].mean((1, 2, 3)).sum()
    (gradient,) = torch.autograd.grad(score, real, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean() / 2


@contextlib.contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Spare the gradients of the parameters of ``module``."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def classification(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy, summed over attributes, averaged over images."""
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="sum") / len(logits)


def distance(images: Tensor, others: Tensor) -> Tensor:
    """Mean absolute difference of two batches plus that of their image gradients (sharpness)."""
    difference = images - others
    slopes = difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
    return difference.abs().mean() + LAMBDA_SLOPE * slopes


def centred(images: Tensor) -> Tensor:
    """Subtract from each edit the mean over its face's: what differs from label to label."""
    faces = images.unflatten(0, (-1, EDITS))
    return (faces - faces.mean(1, keepdim=True)).flatten(0, 1)


class Adversary:
    """A discriminator that sees the crop beside the output, and its optimizer.

    Args:
        image_size: side of the images.
        conv_dim: channels of its first layer.
        lr: learning rate of its Adam.
        device: where it computes.
    """

    def __init__(self, image_size: int, conv_dim: int, lr: float, device: torch.device) -> None:
        self.judge = Discriminator(image_size, conv_dim, channels=6).to(device)
        self.adam = torch.optim.Adam(self.judge.parameters(), lr, betas=(0.5, 0.999), fused=True)
        self.half = torch.autocast(device.type, torch.bfloat16)

    def losses(
        self,
        generator: Generator,
        step: int,
        crops: Tensor,
        edits: Tensor,
        target: Tensor,
        own: Tensor,
        fake: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Train the discriminator for a step: return the generator's loss, and the terms of both.

        Args:
            generator: g.
            step: how many there were.
            crops: photos (N, 3, H, W) in [-1, 1], each face `EDITS` times in a row.
            edits: their recorded edits.
            target: labels (N, 5) of the edits.
            own: labels (N, 5) of the crops.
            fake: the generator's edits, with gradients.
        """
        real_pair = torch.cat([edits, crops], dim=1)
        with self.half:
            score, logits, wanted = self.judge(
                torch.cat([real_pair, torch.cat([fake.detach(), crops], dim=1)])
            )
        real_score, fake_score = score.float().chunk(2)
        real_logits = logits.float()[: len(crops)]
        d_adv = F.relu(1 - real_score).mean() + F.relu(1 + fake_score).mean()
        d_cls = classification(real_logits, target)
        d_loss = d_adv + d_cls
        if step % R1_EVERY == 0:
            d_loss = d_loss + LAMBDA_R1 * R1_EVERY * gradient_penalty(self.judge, real_pair)
        self.adam.zero_grad()
        d_loss.backward()
        self.adam.step()

        with frozen(self.judge), self.half:
            score, logits, features = self.judge(torch.cat([fake, crops], dim=1))
            turn = slice(step % EDITS, None, EDITS)
            back = generator(fake[turn], own[turn])
        rec = distance(back.float(), crops[turn])
        pair = distance(fake, edits)
        edit = distance(centred(fake), centred(edits))
        adv = -score.float().mean()
        cls = classification(logits.float(), target)
        feature = sum(
            (a.float() - b[: len(crops)].detach().float()).abs().mean()
            for a, b in zip(features, wanted, strict=True)
        ) / len(features)
        loss = LAMBDA_PAIR * pair + LAMBDA_EDIT * edit + LAMBDA_FEATURE * feature
        loss = loss + LAMBDA_REC * rec + LAMBDA_ADV * adv + LAMBDA_CLS * cls
        terms = {"pair": pair, "edit": edit, "feature": feature, "rec": rec, "adv": adv, "cls": cls}
        return loss, terms | {"d_adv": d_adv, "d_cls": d_cls}
