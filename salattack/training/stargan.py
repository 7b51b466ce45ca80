"""Train a StarGAN generator against recorded outputs of the published one.

The data is a folder of grids (``1.jpg`` …), rows of six 128×128 tiles: a CelebA crop, then the
published generator's edits in the order of `ATTRIBUTES`; ``labels.csv`` holds each row's labels.
The objective keeps StarGAN's own losses (adversarial, attribute classification, reconstruction)
and adds, since the targets are paired, the distance to the recorded output.
"""

import contextlib
import itertools
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
import typer
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure as ssim
from tqdm import tqdm

from ..attacks import attacker
from ..errors import SalattackError
from ..faces import from_uint8
from ..files import written_whole
from ..generators import ATTRIBUTES, Generator, StarGAN, edit_labels, load_generator
from ..generators.stargan import HAIR
from ..metrics import fake_damage
from ..weights import fit, pick_device, read_state_dict

TILE = 128
COLUMNS = 1 + len(ATTRIBUTES)
HELD_OUT = 10  # grids, the last ones by number: never trained on

LAMBDA_PAIR = 25.0  # distance to the recorded output
LAMBDA_EDIT = 50.0  # the same between what differs among a face's edits
LAMBDA_FEATURE = 10.0  # the same in the discriminator's features
LAMBDA_SLOPE = 0.5  # image gradients, in each distance
LAMBDA_REC = 10.0  # reconstruction (StarGAN, Eq. 4 and 6)
LAMBDA_ADV = 0.5  # adversarial (StarGAN, Eq. 1)
LAMBDA_CLS = 0.2  # attribute classification (StarGAN, Eq. 2, 3, 5 and 6)
LAMBDA_R1 = 0.1  # gradient penalty on real pairs, in place of WGAN-GP's
EDITS = 3  # of each face in a batch; one of them is reconstructed
R1_EVERY = 16  # steps between two penalties, each weighted by as much
EMA_DECAY = 0.997
LOG_EVERY = 20  # steps averaged in a row of losses.csv


@dataclass(frozen=True, kw_only=True)
class Grids:
    """Faces with their recorded edits.

    Attributes:
        tiles: (N, 6, 3, 128, 128) uint8: the crop, then its five edits.
        labels: (N, 5) the crop's labels, 0 or 1, float.
        grid: (N,) the number of the grid each face comes from.
    """

    tiles: Tensor
    labels: Tensor
    grid: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> "Grids":
        return Grids(tiles=self.tiles[index], labels=self.labels[index], grid=self.grid[index])

    def to(self, device: torch.device) -> "Grids":
        """Return the faces on another device, where that of a GPU holds them all."""
        return Grids(tiles=self.tiles.to(device), labels=self.labels.to(device), grid=self.grid)

    def split(self, held_out: int = HELD_OUT) -> tuple["Grids", "Grids"]:
        """Return the faces to train on and those of the last ``held_out`` grids.

        Raises:
            SalattackError: not more than ``held_out`` grids.
        """
        numbers = self.grid.unique()
        if not 0 < held_out < len(numbers):
            raise SalattackError(
                f"cannot hold out {held_out} of {len(numbers)} grids; hold out at least one "
                "and leave one to train on"
            )
        kept = self.grid >= numbers[-held_out]
        return self[~kept], self[kept]

    def targets(self) -> Tensor:
        """Return the (N, 5, 5) target labels of the five edits."""
        return torch.stack([edit_labels(self.labels, name) for name in ATTRIBUTES], dim=1)


def load_grids(data: Path) -> Grids:
    """Read every grid of a folder.

    Args:
        data: the folder, with ``<number>.jpg`` and ``labels.csv`` (columns ``grid``, ``row`` and
            the five attributes, 0/1).

    Raises:
        SalattackError: no labels or a column or row missing, no grids, a grid of another size, or
            grids that cannot be decoded (all of them are named; none is skipped).
    """
    path = Path(data) / "labels.csv"
    if not path.is_file():
        raise SalattackError(f"no labels.csv in {data}; it must stand beside the grids")
    try:
        table = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise SalattackError(f"labels.csv cannot be read ({error}); restore the file") from error
    if missing := [c for c in ("grid", "row", *ATTRIBUTES) if c not in table]:
        raise SalattackError(f"labels.csv lacks the column {missing[0]}; restore the file")
    if not table[list(ATTRIBUTES)].isin([0, 1]).all(axis=None):
        raise SalattackError("labels.csv holds a label that is not 0 or 1; restore the file")
    files = {int(f.stem): f for f in Path(data).glob("*.jpg") if f.stem.isdecimal()}
    if not files:
        raise SalattackError(f"no grids (1.jpg, 2.jpg, …) in {data}; check the path")
    if odd := sorted(set(table["grid"]) ^ set(files)):
        known = "a grid" if odd[0] in files else "labels"
        raise SalattackError(f"{odd[0]}.jpg: only {known} found, not its counterpart")
    tiles, labels, numbers, bad = [], [], [], []
    for number, file in sorted(files.items()):
        try:
            with Image.open(file) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, Image.DecompressionBombError):
            bad.append(file.name)
            continue
        rows = table[table["grid"] == number].sort_values("row")
        if list(rows["row"]) != list(range(len(rows))):
            raise SalattackError(f"{file.name}: labels.csv misses or repeats a row of it")
        if pixels.shape[:2] != (len(rows) * TILE, COLUMNS * TILE):
            raise SalattackError(
                f"{file.name} is {pixels.shape[1]}×{pixels.shape[0]} px, but {len(rows)} labelled "
                f"rows need {COLUMNS * TILE}×{len(rows) * TILE}"
            )
        grid = torch.from_numpy(pixels.copy()).view(len(rows), TILE, COLUMNS, TILE, 3)
        tiles.append(grid.permute(0, 2, 4, 1, 3))
        labels.append(torch.tensor(rows[list(ATTRIBUTES)].to_numpy(), dtype=torch.float32))
        numbers += [number] * len(rows)
    if bad:
        raise SalattackError(
            f"{len(bad)} of {len(files)} grids cannot be decoded: {', '.join(bad)}; restore them"
        )
    return Grids(tiles=torch.cat(tiles), labels=torch.cat(labels), grid=torch.tensor(numbers))


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


def evaluate(
    generator: Generator,
    data: Path | Grids,
    *,
    faces: int | None = None,
    attacked: int | None = None,
    batch_size: int = 8,
    held_out: int = HELD_OUT,
    bfloat16: bool = False,
) -> dict[str, float]:
    """Measure a generator on the held-out grids.

    Args:
        generator: images (N, 3, 128, 128) in [-1, 1] and labels (N, 5) to images.
        data: the folder of grids, or the held-out faces themselves.
        faces: how many to use, spread evenly; all by default.
        attacked: how many of them to attack (one edit each, in turn); all by default.
        batch_size: faces at once.
        held_out: how many grids are held out, where ``data`` is a folder.
        bfloat16: run the generator in half precision.

    Returns:
        ``ratio_<attribute>`` and ``ratio``: mean absolute error to the recorded output over that
        of the unedited crop; ``ssim`` to the recorded output; ``damage``: mean squared change of
        the output under the "pgd" attacker; ``broken``: share of outputs changed by more than 0.05.
    """
    held = data if isinstance(data, Grids) else load_grids(data).split(held_out)[1]
    if faces is not None:
        held = held[torch.linspace(0, len(held) - 1, min(faces, len(held))).round().long()]
    count = len(held) if attacked is None else min(attacked, len(held))
    targets = held.targets()

    def run(images: Tensor, target: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
            return generator(images, target).float()

    ours, still, similar = torch.zeros(5), torch.zeros(5), 0.0
    damage: list[dict[str, Tensor]] = []
    for start in range(0, len(held), batch_size):
        part = slice(start, start + batch_size)
        tiles = from_uint8(held.tiles[part])
        crops = tiles[:, 0]
        for edit in range(len(ATTRIBUTES)):
            with torch.no_grad():
                fake = run(crops, targets[part, edit])
            official = tiles[:, 1 + edit]
            ours[edit] += (fake - official).abs().mean((1, 2, 3)).sum().cpu()
            still[edit] += (crops - official).abs().mean((1, 2, 3)).sum().cpu()
            similar += float(ssim(fake, official, data_range=2.0, reduction="sum"))
        crops = crops[: max(0, count - start)]
        if len(crops):
            edit = torch.arange(start, start + len(crops))
            target = targets[edit, edit % len(ATTRIBUTES)]
            disrupted = attacker("pgd")(run, crops, target)
            with torch.no_grad():
                damage.append(fake_damage(run(crops, target), run(disrupted, target)))
    ratio = ours / still
    result = {f"ratio_{name}": float(r) for name, r in zip(ATTRIBUTES, ratio, strict=True)}
    result |= {"ratio": float(ratio.mean()), "ssim": similar / len(held) / len(ATTRIBUTES)}
    if damage:
        result["damage"] = float(torch.cat([d["damage_l2"] for d in damage]).mean())
        result["broken"] = float(torch.cat([d["success"] for d in damage]).mean())
    return result


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


def sample(
    grids: Grids, targets: Tensor, batch_size: int, rng: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw a batch: crops, recorded edits, target labels, the crops' own labels.

    Each face comes `EDITS` times in a row, with a random hair colour, Male and Young; the batch is
    mirrored with probability one half.
    """

    def draw(high: int, size: int) -> Tensor:
        return torch.randint(high, (size,), generator=rng)

    face, hair = draw(len(grids), batch_size), draw(len(HAIR), batch_size)
    edit = torch.stack([hair, *(torch.full_like(hair, i) for i in (3, 4))], 1).flatten()
    face = face.repeat_interleave(EDITS)
    pairs = from_uint8(torch.stack([grids.tiles[face, 0], grids.tiles[face, 1 + edit]]))
    crops, edits = pairs.flip(-1) if draw(2, 1) else pairs
    return crops, edits, targets[face, edit], grids.labels[face]


def centred(images: Tensor) -> Tensor:
    """Subtract from each edit the mean over its face's: what differs from label to label."""
    faces = images.unflatten(0, (-1, EDITS))
    return (faces - faces.mean(1, keepdim=True)).flatten(0, 1)


def train(
    data: Path,
    out: Path,
    *,
    init: Path | None = None,
    steps: int = 10_000,
    batch_size: int = 2,
    conv_dim: int = 32,
    discriminator_dim: int = 16,
    lr: float = 1e-4,
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
        steps: at which to stop; the learning rate falls linearly to 0 there.
        batch_size: faces a step, each with `EDITS` edits.
        conv_dim: channels of the generator's first layer.
        discriminator_dim: channels of the discriminator's first layer.
        lr: learning rate of the generator's Adam (as published; beta 0.9 instead of 0.5).
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
    generator = StarGAN(conv_dim)
    judge = Discriminator(TILE, discriminator_dim, channels=6)
    if init is not None:
        fit(generator, read_state_dict(init), Path(init).name)
    generator, judge = generator.to(place), judge.to(place)
    average = deepcopy(generator).requires_grad_(False)
    adams = [
        torch.optim.Adam(m.parameters(), rate, betas=(beta, 0.999), fused=True)
        for m, rate, beta in ((generator, lr, 0.9), (judge, lr_discriminator, 0.5))
    ]
    rng = torch.Generator().manual_seed(seed)
    parts = {"generator": generator, "discriminator": judge, "average": average}
    parts |= {"generator_adam": adams[0], "discriminator_adam": adams[1]}
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
                row = evaluate(module, held, faces=evaluate_faces, attacked=16, bfloat16=True)
            average.requires_grad_(False)
            append(evaluation, step, {"weights": name, **row})

    half = torch.autocast(place.type, torch.bfloat16)
    saved = measured = time.monotonic()
    if first == 0:
        measure(0)
    bar = tqdm(range(first, steps), initial=first, total=steps, mininterval=10, ncols=100)
    for step in bar:
        for adam, rate in zip(adams, (lr, lr_discriminator), strict=True):
            adam.param_groups[0]["lr"] = rate * (1 - step / steps)
        crops, edits, target, own = sample(grids, targets, batch_size, rng)
        with half:
            fake = generator(crops, target)
        fake = fake.float()

        real_pair = torch.cat([edits, crops], dim=1)
        with half:
            score, logits, wanted = judge(
                torch.cat([real_pair, torch.cat([fake.detach(), crops], dim=1)])
            )
        real_score, fake_score = score.float().chunk(2)
        real_logits = logits.float()[: len(crops)]
        d_adv = F.relu(1 - real_score).mean() + F.relu(1 + fake_score).mean()
        d_cls = classification(real_logits, target)
        d_loss = d_adv + d_cls
        if step % R1_EVERY == 0:
            d_loss = d_loss + LAMBDA_R1 * R1_EVERY * gradient_penalty(judge, real_pair)
        adams[1].zero_grad()
        d_loss.backward()
        adams[1].step()

        with frozen(judge):
            with half:
                score, logits, features = judge(torch.cat([fake, crops], dim=1))
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
            adams[0].zero_grad()
            loss.backward()
        adams[0].step()
        with torch.no_grad():
            torch._foreach_lerp_(
                list(average.parameters()), list(generator.parameters()), 1 - EMA_DECAY
            )

        terms = {"pair": pair, "edit": edit, "feature": feature, "rec": rec, "adv": adv, "cls": cls}
        terms |= {"d_adv": d_adv, "d_cls": d_cls}
        for name, term in terms.items():
            sums[name] = sums.get(name, 0.0) + term.item() / LOG_EVERY
        if (step + 1) % LOG_EVERY == 0:
            append(losses, step + 1, sums)
            bar.set_postfix({k: f"{sums[k]:.3f}" for k in ("pair", "rec", "d_adv")}, refresh=False)
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


def train_classifier(
    images: Tensor, labels: Tensor, *, steps: int = 2000, batch_size: int = 64, seed: int = 0
) -> nn.Module:
    """Train a tiny classifier of the five attributes, to tell whether an edit shows.

    Args:
        images: (N, 3, H, W) uint8 crops framed as StarGAN's; 64 px are enough.
        labels: (N, 5) labels, 0 or 1.
        steps: of Adam, learning rate 2e-3 falling to 0.
        batch_size: faces a step.
        seed: of weights and draws.

    Returns:
        Images (N, 3, H, W) in [-1, 1], of any size, to (N, 5) logits.
    """
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    device = images.device
    widths = (3, 16, 32, 64, 96)
    layers: list[nn.Module] = [nn.AdaptiveAvgPool2d(64)]
    for a, b in itertools.pairwise(widths):
        layers += [nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
    head = [nn.Flatten(), nn.Dropout(0.5), nn.Linear(96 * 4 * 4, len(ATTRIBUTES))]
    classifier = nn.Sequential(*layers, *head).to(device)
    adam = torch.optim.AdamW(classifier.parameters(), 2e-3)
    for step in range(steps):
        adam.param_groups[0]["lr"] = 2e-3 * (1 - step / steps)
        index = torch.randint(len(images), (batch_size,), generator=rng)
        batch = from_uint8(images[index])
        batch = batch.flip(-1) if torch.rand((), generator=rng) < 0.5 else batch
        loss = F.binary_cross_entropy_with_logits(classifier(batch), labels[index])
        adam.zero_grad()
        loss.backward()
        adam.step()
    return classifier.requires_grad_(False).eval()


@torch.no_grad()
def flip_rates(classifier: nn.Module, generator: Generator, held: Grids) -> pd.DataFrame:
    """Return how often an edit changes what a classifier sees in a face.

    Counted for an attribute are the faces that lack what its edit asks for, and whose crop the
    classifier judges as labelled.

    Args:
        classifier: see `train_classifier`.
        generator: the generator to judge.
        held: faces with the published generator's edits beside them.

    Returns:
        A row for each attribute: ``faces`` counted, ``ours`` and ``published``, the shares of
        their edits in which the classifier sees the target, and the classifier's ``accuracy``.
    """
    seen = torch.cat([classifier(from_uint8(part)) > 0 for part in held.tiles[:, 0].split(32)])
    right = seen == held.labels.bool()
    rows = []
    for k, name in enumerate(ATTRIBUTES):
        target = held.targets()[:, k]
        index = (right[:, k] & (target[:, k] != held.labels[:, k])).nonzero().flatten()
        shares = torch.zeros(2)
        for part in index.split(8):
            tiles = from_uint8(held.tiles[part])
            for i, image in enumerate((generator(tiles[:, 0], target[part]), tiles[:, 1 + k])):
                reached = (classifier(image)[:, k] > 0) == target[part, k].bool()
                shares[i] += reached.sum().cpu() / len(index)
        ours, published = shares.tolist()
        accuracy = float(right[:, k].float().mean())
        rows.append((name, len(index), ours, published, accuracy))
    return pd.DataFrame(rows, columns=["attribute", "faces", "ours", "published", "accuracy"])


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
