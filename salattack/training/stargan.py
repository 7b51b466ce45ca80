"""Train a StarGAN generator against recorded outputs of the published one.

The objective is the distance to the recorded output (`salattack.training.grids`) in pixels,
in a backbone's features and in the logits of attribute classifiers, or in pixels beside StarGAN's
own losses (adversarial, attribute classification, reconstruction).
"""

import time
from copy import deepcopy
from pathlib import Path

import pandas as pd
import torch
import typer
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import SalattackError, one_of
from ..faces import from_uint8
from ..files import written_whole
from ..generators import ATTRIBUTES, CycleGAN, StarGAN, load_generator
from ..generators.stargan import HAIR
from ..metrics import unit_features
from ..saliency import load_saliency
from ..weights import fit, pick_device, read_state_dict
from .adversary import EDITS, Adversary, distance, frozen
from .grids import HELD_OUT, TILE, Grids, load_grids
from .quality import evaluate, flip_rates, train_classifier

CYCLEGAN_BLOCKS = 6  # as published for 128 px
EMA_DECAY = 0.99
SHARES = (1.0, 1.0, 1.0, 2.0, 1.5)  # how often an edit is drawn: gender and age are learnt last
CLASSIFIERS = 3  # one alone is fooled more easily than convinced
CLASSIFIER_STEPS = 600
WARM_UP = 20  # steps over which the learning rate rises
LOG_EVERY = 20  # steps averaged in a row of losses.csv


def append(path: Path, step: int, row: dict[str, object]) -> None:
    """Add a row to a CSV file, writing its header first where there is none."""
    pd.DataFrame([{"step": step, **row}]).to_csv(
        path, mode="a", header=not path.exists(), index=False, float_format="%.5g"
    )


def forget_after(path: Path, step: int) -> None:
    """Drop the rows a killed run had written beyond its last checkpoint."""
    if path.exists():
        table = pd.read_csv(path)
        table[table["step"] <= step].to_csv(path, index=False)


def sample(
    grids: Grids,
    targets: Tensor,
    batch_size: int,
    rng: torch.Generator,
    adversarial: bool,
    only: str | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw a batch: crops, recorded edits, target labels, the crops' own labels.

    One random edit of each face (by `SHARES`, or the ``only`` one), unmirrored, since the
    published generator does not edit a mirrored face quite as the face. For the adversarial
    losses each face comes `EDITS` times in a row, with a random hair colour, Male and Young, and
    the batch is mirrored with probability one half.
    """

    def draw(high: int, size: int) -> Tensor:
        return torch.randint(high, (size,), generator=rng)

    face = draw(len(grids), batch_size)
    if not adversarial:
        edit = torch.multinomial(torch.tensor(SHARES), batch_size, True, generator=rng)
        if only is not None:
            edit = torch.full_like(edit, ATTRIBUTES.index(only))
        crops, edits = from_uint8(torch.stack([grids.tiles[face, 0], grids.tiles[face, 1 + edit]]))
        return crops, edits, targets[face, edit], grids.labels[face]
    hair = draw(len(HAIR), batch_size)
    edit = torch.stack([hair, *(torch.full_like(hair, i) for i in (3, 4))], 1).flatten()
    face = face.repeat_interleave(EDITS)
    pairs = from_uint8(torch.stack([grids.tiles[face, 0], grids.tiles[face, 1 + edit]]))
    crops, edits = pairs.flip(-1) if draw(2, 1) else pairs
    return crops, edits, targets[face, edit], grids.labels[face]


class MatrixMuon(torch.optim.Muon):
    """Muon (Jordan, 2024) for convolutions, whose kernels it sees as matrices, a row a filter."""

    def __init__(self, kernels: list[Tensor], lr: float) -> None:
        self.kernels = kernels
        self.matrices = [nn.Parameter(kernel.detach().flatten(1)) for kernel in kernels]
        super().__init__(self.matrices, lr, weight_decay=0, adjust_lr_fn="match_rms_adamw")

    def step(self) -> None:
        """Move the kernels, which share their memory with the matrices."""
        for matrix, kernel in zip(self.matrices, self.kernels, strict=True):
            matrix.grad = kernel.grad.flatten(1)
        super().step()


def optimizers(generator: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Return Muon for the inner convolutions and Adam for all else, at one learning rate.

    Of the two, Muon came down faster in a short comparison (the model card).
    """
    inner = [
        module.weight
        for module in generator.modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
        and min(module.in_channels, module.out_channels) > len(ATTRIBUTES) + 3
    ]
    known = {id(p) for p in inner}
    rest = [p for p in generator.parameters() if id(p) not in known]
    return [MatrixMuon(inner, lr), torch.optim.Adam(rest, lr, betas=(0.9, 0.99), fused=True)]


def train(
    data: Path,
    out: Path,
    *,
    init: Path | None = None,
    edit: str | None = None,
    perceptual: float = 0.1,
    classification: float = 0.02,
    adversarial: bool = False,
    steps: int = 4_000,
    batch_size: int = 8,
    conv_dim: int = 32,
    discriminator_dim: int = 16,
    lr: float = 5e-4,
    lr_discriminator: float = 4e-4,
    held_out: int = HELD_OUT,
    seed: int = 0,
    threads: int = 1,
    device: str = "auto",
    checkpoint_seconds: float = 50,
    evaluate_seconds: float = 600,
    evaluate_faces: int = 20,
) -> Path:
    """Train, or go on with what ``out`` holds.

    Writes to ``out``: ``checkpoint.pt`` (everything needed to go on, at most
    ``checkpoint_seconds`` old), ``losses.csv`` and ``evaluation.csv`` (raw and averaged weights on
    a fixed part of the held-out grids). A run that was killed and started again ends in the same
    weights as one that was not, where batch and learning rate stay the same.

    Args:
        data: the folder of grids.
        out: the folder to write to.
        init: weights to start from, of the same width; random weights by default.
        edit: train CycleGAN's unconditional generator on this edit alone, in place of StarGAN's.
        perceptual: weight of the distance to the recorded output in the features of pfan-light's
            backbone (`feature_distance`), beside that in pixels; the adversarial losses have the
            discriminator's instead.
        classification: weight of the distance to the recorded output in the logits of small
            attribute classifiers, trained first on the crops; StarGAN's classification loss (its
            Eq. 3) with the published model's edits in place of the labels.
        adversarial: train with StarGAN's own losses too; a rate of 1e-4 suits them.
        steps: at which to stop; the learning rate falls linearly to 0 there.
        batch_size: faces a step, with one edit each, or `EDITS` for the adversarial losses.
        conv_dim: channels of the generator's first layer.
        discriminator_dim: channels of the discriminator's first layer.
        lr: learning rate of the generator.
        lr_discriminator: of the discriminator's.
        held_out: grids that are not trained on, the last ones.
        seed: of the initial weights and of every draw.
        threads: that torch may use.
        device: "auto" takes CUDA where there is one.
        checkpoint_seconds: between two checkpoints.
        evaluate_seconds: between two evaluations.
        evaluate_faces: how many held-out faces each uses; 16 of them are attacked.

    Returns:
        The checkpoint's path.

    Raises:
        SalattackError: data, initial weights or a checkpoint that do not fit.
    """
    place = pick_device(device)
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    grids, held = (part.to(place) for part in load_grids(data).split(held_out))
    targets = grids.targets()
    if edit is not None and (adversarial or edit not in ATTRIBUTES):
        if adversarial:
            raise SalattackError("the adversarial losses edit by labels: leave out the edit")
        raise one_of("edit", edit, ATTRIBUTES)
    generator = StarGAN(conv_dim) if edit is None else CycleGAN(conv_dim, CYCLEGAN_BLOCKS)
    if init is not None:
        fit(generator, read_state_dict(init), Path(init).name)
    generator = generator.to(place)
    average = deepcopy(generator).requires_grad_(False)
    steppers, adversary = optimizers(generator, lr), None
    rates = dict.fromkeys(steppers, lr)
    features = None
    if perceptual and not adversarial:
        features = load_saliency(device=str(place)).feature_maps
    classifiers = []
    if classification and not adversarial:
        crops = grids.tiles[:, 0]
        for number in range(1, 1 + CLASSIFIERS):  # other seeds than the report's
            classifiers.append(
                train_classifier(crops, grids.labels, steps=CLASSIFIER_STEPS, seed=seed + number)
            )
    parts: dict = {"generator": generator, "average": average}
    if adversarial:
        adversary = Adversary(TILE, discriminator_dim, lr_discriminator, place)
        rates[adversary.adam] = lr_discriminator
        parts["discriminator"] = adversary.judge
    parts |= {f"optimizer_{i}": optimizer for i, optimizer in enumerate(rates)}
    rng = torch.Generator().manual_seed(seed)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, losses, evaluation = (
        out / name for name in ("checkpoint.pt", "losses.csv", "evaluation.csv")
    )
    first, sums = 0, {}
    if checkpoint.exists():
        state = read_checkpoint(checkpoint)
        try:
            for name, part in parts.items():
                part.load_state_dict(state[name])
        except (KeyError, ValueError, RuntimeError) as error:
            raise SalattackError(
                f"{checkpoint.name} does not fit these settings; use another folder"
            ) from error
        first, sums = state["step"], state["sums"]
        rng.set_state(state["rng"])
    for path in (losses, evaluation):
        forget_after(path, first)

    def save(step: int) -> None:
        state = {name: part.state_dict() for name, part in parts.items()}
        state |= {"step": step, "rng": rng.get_state(), "sums": sums}
        with written_whole(checkpoint) as path:
            torch.save(state, path)

    def measure(step: int) -> None:
        for name, module in (("raw", generator), ("average", average)):
            with frozen(module):
                row = evaluate(
                    module, held, edits=edits_of, faces=evaluate_faces, attacked=16, bfloat16=True
                )
            average.requires_grad_(False)
            append(evaluation, step, {"weights": name, **row})

    edits_of = ATTRIBUTES if edit is None else (edit,)
    half = torch.autocast(place.type, torch.bfloat16)
    saved = measured = time.monotonic()
    if first == 0:
        measure(0)
    bar = tqdm(range(first, steps), initial=first, total=steps, mininterval=10, ncols=100)
    for step in bar:
        pace = min(1, (step + 1) / WARM_UP) * (1 - step / steps)
        for optimizer, rate in rates.items():
            optimizer.param_groups[0]["lr"] = rate * pace
        crops, edits, target, own = sample(grids, targets, batch_size, rng, adversarial, edit)
        with half:
            fake = generator(crops, target)
        fake = fake.float()

        if adversary is None:
            loss = pair = distance(fake, edits)
            terms = {"pair": pair}
            if features is not None:
                with torch.no_grad():
                    wanted = unit_features(edits, features)
                terms["feature"] = (unit_features(fake, features) - wanted).square().sum(1).mean()
                loss = loss + perceptual * terms["feature"]
            if classifiers:
                seen, wanted = (sum(c(x) for c in classifiers) for x in (fake, edits))
                terms["logits"] = (seen - wanted).abs().mean() / len(classifiers)
                loss = loss + classification * terms["logits"]
        else:
            loss, terms = adversary.losses(generator, step, crops, edits, target, own, fake)
        generator.zero_grad()
        loss.backward()
        for optimizer in steppers:
            optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(
                list(average.parameters()), list(generator.parameters()), 1 - EMA_DECAY
            )

        for name, term in terms.items():
            sums[name] = sums.get(name, 0.0) + term.item() / LOG_EVERY
        if (step + 1) % LOG_EVERY == 0:
            append(losses, step + 1, sums)
            bar.set_postfix(
                {k: f"{sums[k]:.3f}" for k in ("pair", "rec") if k in sums}, refresh=False
            )
            sums = {}
        if time.monotonic() - saved > checkpoint_seconds:
            save(step + 1)
            saved = time.monotonic()
        if time.monotonic() - measured > evaluate_seconds:
            measure(step + 1)
            measured = time.monotonic()
    measure(steps)
    save(steps)
    return checkpoint


def read_checkpoint(path: Path) -> dict:
    """Read a checkpoint that `train` wrote; tensors and numbers only, nothing is executed.

    Raises:
        SalattackError: not such a file.
    """
    state = read_state_dict(path)
    if not {"generator", "average", "step"} <= state.keys():
        raise SalattackError(f"{Path(path).name} is not a checkpoint of this training")
    return state


def export(checkpoint: Path, path: Path, *, weights: str = "average") -> Path:
    """Write a checkpoint's generator as half-precision safetensors.

    Args:
        checkpoint: a file that `train` wrote.
        path: the file to write.
        weights: ``average`` (exponential) or ``generator`` (raw).

    Raises:
        SalattackError: not a checkpoint, or unknown ``weights``.
    """
    if weights not in ("average", "generator"):
        raise SalattackError(f"unknown weights {weights!r}; known: average, generator")
    state = {k: v.half().contiguous() for k, v in read_checkpoint(checkpoint)[weights].items()}
    with written_whole(path) as beside:
        save_file(state, beside)
    return Path(path)


app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__.splitlines()[0])
app.command("train", help="Train a generator, or go on with a training that was killed.")(train)


@app.command("evaluate")
def _evaluate(data: Path, weights: Path) -> None:
    """Print the measurements of a weight file on the held-out grids, and its flip rates."""
    place = pick_device()
    trained, held = (part.to(place) for part in load_grids(data).split())
    generator = load_generator(weights=weights)
    for name, value in evaluate(generator, held).items():
        typer.echo(f"{name:18} {value:.4f}")
    classifier = train_classifier(trained.tiles[:, 0], trained.labels)
    typer.echo(flip_rates(classifier, generator, held).to_string(index=False))


@app.command("export")
def _export(checkpoint: Path, path: Path, weights: str = "average") -> None:
    """Write a checkpoint's generator as half-precision safetensors."""
    export(checkpoint, path, weights=weights)


if __name__ == "__main__":
    try:
        app()
    except SalattackError as error:
        raise SystemExit(str(error)) from None
