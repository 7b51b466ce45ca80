"""Train a StarGAN or CycleGAN generator to repeat the recorded edits of the published StarGAN.

The loss is the distance to the recorded edit (`salattack.training.grids`) in pixels, in the
features of a backbone and in the logits of attribute classifiers.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..edits import ATTRIBUTES
from ..errors import one_of
from ..generators import CycleGAN, StarGAN
from ..images import from_uint8
from ..metrics import unit_features
from ..runtime.device import pick_device
from ..saliency import load_saliency
from .grids import HELD_OUT, Grids, load_grids
from .quality import generator_quality, train_classifier
from .resumable import EVALUATION, Resumable, Settings, export

CYCLEGAN_BLOCKS = 6  # as published for 128 px
EMA_DECAY = 0.99
SHARES = (1.0, 1.0, 1.0, 2.0, 1.5)  # how often an edit is drawn: gender and age are learnt last
CLASSIFIERS = 3  # a single one is fooled more easily than convinced
LAMBDA_SLOPE = 0.5  # weight of the image gradients in `distance`
WARM_UP = 20  # steps over which the learning rate rises
EVALUATE_SECONDS = 600
EVALUATED, ATTACKED = 20, 16  # held-out faces in each evaluation


@dataclass(frozen=True, kw_only=True)
class StarGANSettings(Settings):
    """The same for a generator; ``data`` is a folder of grids."""

    edit: str | None = None  # train CycleGAN's generator on this edit only, instead of StarGAN's
    perceptual: float = 0.1  # weight of the distance in features of pfan-light's backbone
    classification: float = 0.02  # weight of the distance in logits of attribute classifiers
    batch_size: int = 8  # faces per step, with one edit each
    conv_dim: int = 32  # channels of the generator's first layer
    lr: float = 5e-4
    held_out: int = HELD_OUT  # the last grids, which are not trained on
    device: str = field(default="auto", compare=False)  # "auto" takes CUDA where there is one


class MatrixMuon(torch.optim.Muon):
    """Muon (Jordan, 2024) for convolutions: each kernel is a matrix with one row per filter."""

    def __init__(self, kernels: list[Tensor], lr: float) -> None:
        self.kernels = kernels
        self.matrices = [nn.Parameter(kernel.detach().flatten(1)) for kernel in kernels]
        super().__init__(self.matrices, lr, weight_decay=0, adjust_lr_fn="match_rms_adamw")

    def step(self) -> None:
        """Update the kernels, which share their memory with the matrices."""
        for matrix, kernel in zip(self.matrices, self.kernels, strict=True):
            matrix.grad = kernel.grad.flatten(1)
        super().step()


def optimizers(generator: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Return Muon for the inner convolutions and Adam for the other parameters.

    Muon converged faster than Adam in a short comparison (see the model card).
    """
    inner = [
        module.weight
        for module in generator.modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
        and min(module.in_channels, module.out_channels) > len(ATTRIBUTES) + 3
    ]
    rest = [p for p in generator.parameters() if all(p is not kernel for kernel in inner)]
    return [MatrixMuon(inner, lr), torch.optim.Adam(rest, lr, betas=(0.9, 0.99), fused=True)]


def distance(images: Tensor, others: Tensor) -> Tensor:
    """Return the mean absolute difference, plus that of the image gradients (for sharpness)."""
    difference = images - others
    slopes = difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
    return difference.abs().mean() + LAMBDA_SLOPE * slopes


def loss_terms(settings: StarGANSettings, grids: Grids) -> dict[str, tuple[float, Callable]]:
    """Return the terms of the loss by name: weight, and distance of two batches of edits.

    That of the classifiers is StarGAN's Eq. 3 with the published edits in place of the labels.
    """
    terms: dict[str, tuple[float, Callable]] = {"pair": (1.0, distance)}
    if settings.perceptual:
        maps = load_saliency(device=str(grids.tiles.device)).feature_maps

        def in_features(fake: Tensor, edits: Tensor) -> Tensor:
            return (unit_features(fake, maps) - unit_features(edits, maps)).square().sum(1).mean()

        terms["feature"] = settings.perceptual, in_features
    if settings.classification:
        classifiers = [  # other seeds than the judge of the bars
            train_classifier(grids.tiles[:, 0], grids.labels, seed=settings.seed + number)
            for number in range(1, 1 + CLASSIFIERS)
        ]

        def in_logits(fake: Tensor, edits: Tensor) -> Tensor:
            seen, wanted = (sum(c(x) for c in classifiers) for x in (fake, edits))
            return (seen - wanted).abs().mean() / len(classifiers)

        terms["logits"] = settings.classification, in_logits
    return terms


def sample(
    settings: StarGANSettings, grids: Grids, targets: Tensor, rng: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw faces and an edit for each: crops and recorded edits (N, 3, 128, 128), targets (N, 5).

    No batch is mirrored: the published generator edits a mirrored face a little differently.
    """
    face = torch.randint(len(grids), (settings.batch_size,), generator=rng)
    edit = torch.multinomial(torch.tensor(SHARES), len(face), True, generator=rng)
    if settings.edit is not None:
        edit = torch.full_like(edit, ATTRIBUTES.index(settings.edit))
    crops, edits = from_uint8(torch.stack([grids.tiles[face, 0], grids.tiles[face, 1 + edit]]))
    return crops, edits, targets[face, edit]


def train_stargan(settings: StarGANSettings) -> Path:
    """Train a generator, or resume, and return the averaged weights' path.

    Every ten minutes ``evaluation.csv`` gets the quality of the raw and the averaged weights on
    a fixed part of the held-out grids. Files that do not fit raise SalattackError.
    """
    if settings.edit not in (None, *ATTRIBUTES):
        raise one_of("edit", settings.edit, ATTRIBUTES)
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    place, width = pick_device(settings.device), settings.conv_dim
    generator = StarGAN(width) if settings.edit is None else CycleGAN(width, CYCLEGAN_BLOCKS)
    settings.fill(generator)
    generator.to(place)
    grids, held = (part.to(place) for part in load_grids(settings.data).split(settings.held_out))
    average = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
    average.n_averaged.fill_(1)  # the initial weights count
    held = held[torch.linspace(0, len(held) - 1, min(EVALUATED, len(held))).round().long()]
    rng = torch.Generator().manual_seed(settings.seed)
    muon, adam = optimizers(generator, settings.lr)
    parts = {"network": generator, "average": average, "muon": muon, "adam": adam}
    run = Resumable(settings, parts, rng)
    terms, targets = loss_terms(settings, grids), grids.targets()

    def evaluate(step: int) -> None:
        how = {"edits": ATTRIBUTES if settings.edit is None else (settings.edit,)}
        how |= {"attacked": ATTACKED, "bfloat16": True}
        for name, network in (("raw", generator), ("average", average)):
            row = generator_quality(network, held, **how)
            run.append(EVALUATION, step, {"weights": name, **row})

    if run.step == 0:
        evaluate(0)
    evaluated = time.monotonic()
    for step in run.steps(settings.steps):
        pace = min(1, (step + 1) / WARM_UP) * (1 - step / settings.steps)
        for optimizer in (muon, adam):
            optimizer.param_groups[0]["lr"] = settings.lr * pace
        crops, edits, target = sample(settings, grids, targets, rng)
        with torch.autocast(place.type, torch.bfloat16):
            fake = generator(crops, target)
        fake = fake.float()
        values = {name: term(fake, edits) for name, (_, term) in terms.items()}
        run.learn(values, sum(weight * values[name] for name, (weight, _) in terms.items()))
        if step + 1 == settings.steps or time.monotonic() - evaluated > EVALUATE_SECONDS:
            evaluate(step + 1)
            evaluated = time.monotonic()
    return export(run.checkpoint, run.folder / "generator.safetensors")
