"""How fast the attack core is, against the machine's own rate and against the loop as published.

Everything is measured in one run, on the shipped architecture with random weights where none are
shipped. Nothing here is a test.
"""

import json
import math
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from ..attacks import Attack
from ..errors import SalattackError
from ..experiments.evaluation import attackers
from ..generators import StarGAN
from ..presets import TABLE, label_of
from ..runtime.device import frozen, keep_freed_memory, pick_device
from ..runtime.files import write_json, write_text
from ..saliency import load_saliency
from .manifest import provenance

MATRIX = 2048  # side of the matrices that give the machine's rate
STRENGTH = 0.05, 0.01, 10  # Ruiz et al.'s bound, step and steps
ROUNDS = 2  # each takes every time once: what else the machine does seldom hits all of them


def seconds(work: Callable[[], object], at_least: float = 1.0) -> float:
    """Return the median time of ``work`` over ``at_least`` seconds, after a first call."""
    timer = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=at_least).median


def reference_loop(generator: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    """I-FGSM as commonly published: for the comparison alone.

    It takes one image at a time, builds a blur layer anew in every iteration, and has gradients of
    the parameters computed.
    """
    bound, step_size, steps = STRENGTH
    results = []
    for i in range(len(images)):
        original, label = images[i : i + 1], target[i : i + 1]
        with torch.no_grad():
            clean = generator(original, label)
        x = original + 0.001 * (2 * torch.rand_like(original) - 1)
        for _ in range(steps):
            x = x.detach().requires_grad_(True)
            blur = nn.Conv2d(3, 3, 11, padding=5, groups=3, bias=False).to(x.device)
            nn.init.dirac_(blur.weight, groups=3)  # the work of a blur, the result of none
            output = generator(blur(x), label)
            generator.zero_grad()
            loss = F.mse_loss(output, clean)
            loss.backward()
            adversarial = x + step_size * x.grad.sign()
            delta = torch.clamp(adversarial - original, min=-bound, max=bound)
            x = torch.clamp(original + delta, min=-1, max=1)
        results.append(x.detach())
    return torch.cat(results)


def timings(
    image_size: int, conv_dim: int, batch_size: int, names: Sequence[str], device: torch.device
) -> Iterator[dict[str, object]]:
    """Yield a row for each attacker, for the reference loop, and for the mask.

    Times are per image, whole attacks divided by their steps, each the least of `ROUNDS`. The
    columns are explained in ``docs/speed.md``; ``speedup`` is given for attackers with one
    gradient a step, as the reference loop has.
    """
    torch.manual_seed(0)
    generator = frozen(StarGAN(conv_dim), device)
    images = torch.rand(batch_size, 3, image_size, image_size, device=device) * 2 - 1
    target = torch.eye(5, device=device)[torch.arange(batch_size) % 5]
    saliency = load_saliency(device=str(device))
    saliency_map = saliency(images)
    with FlopCounterMode(display=False) as counter:
        x = images.clone().requires_grad_()
        generator(x, target).sum().backward()  # the counter cannot follow autograd.grad
    flops = counter.get_total_flops()
    published = StarGAN(conv_dim).eval().to(device)

    def run(attack: Attack) -> Callable[[], object]:
        region = saliency_map if attack.region == "saliency" else None
        return lambda: attack(generator, images, target, region)

    a, b = (torch.rand(MATRIX, MATRIX, device=device) for _ in range(2))
    attacks = {label_of(name): attack for name, attack in attackers(names, *STRENGTH).items()}
    works = {  # what is done, its iterations and its gradients
        "matmul": (lambda: a @ b, 1, 0),
        "forward": (torch.no_grad()(lambda: generator(images, target)), 1, 0),
        "plain": (torch.no_grad()(lambda: published(images, target)), 1, 0),
        **{name: (run(attack), attack.steps, attack.gradients) for name, attack in attacks.items()},
        "mask alone": (torch.no_grad()(lambda: saliency(images)), 1, math.nan),
        "reference loop": (lambda: reference_loop(published, images, target), *STRENGTH[2:] * 2),
    }
    spent = dict.fromkeys(works, math.inf)
    for _ in range(ROUNDS):
        for name, (work, *_) in works.items():
            spent[name] = min(spent[name], seconds(work))
    peak = 2 * MATRIX**3 / spent.pop("matmul")
    forward, plain = spent.pop("forward"), spent.pop("plain")
    for name, whole in spent.items():
        _, iterations, gradients = works[name]
        iteration, rate = whole / iterations, gradients * flops / whole
        yield {
            "px": image_size,
            "width": conv_dim,
            "batch": batch_size,
            "what": name,
            "forward_ms": 1e3 * forward / batch_size,
            "iteration_ms": 1e3 * iteration / batch_size,
            "forwards": iteration / forward,
            "plain_forwards": iteration / plain,
            "speedup": spent["reference loop"] / whole if gradients == iterations else math.nan,
            "rate": rate / peak,
            "gflops": rate / 1e9,
            "process_peak_mb": _peak_mb(device),
        }


def as_markdown(table: pd.DataFrame) -> str:
    """Return the rows of `timings` as Markdown; a rate above 1 means a disturbed matmul."""
    digits = {"forward_ms": 1, "iteration_ms": 1, "speedup": 2, "rate": 2}
    digits |= {"forwards": 2, "plain_forwards": 2}
    table = table.round(digits | {"gflops": 0, "process_peak_mb": 0}).astype(object)
    table["rate"] = table["rate"].where(table["rate"] <= 1)
    return table.where(table.notna(), "–").to_markdown(index=False)


def _peak_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**20


def import_seconds() -> float:
    """Return what importing the attack core costs beyond torch, in a fresh process."""
    code = "import time, torch; t = time.perf_counter(); import salattack, salattack.attacks"
    command = [sys.executable, "-c", f"{code}; print(time.perf_counter() - t)"]
    return min(float(subprocess.check_output(command)) for _ in range(3))


def benchmark(
    sizes: Annotated[str, typer.Option(help="Image sides in pixels.")] = "128,256",
    widths: Annotated[str, typer.Option(help="conv_dim of the generator.")] = "32,64",
    batches: Annotated[str, typer.Option(help="Images at a time.")] = "1,16",
    attacker: Annotated[list[str] | None, typer.Option(help="Table I's when left out.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda …")] = "auto",
    output: Annotated[Path, typer.Option(help="Tables go here.")] = Path("results"),
) -> None:
    """Measure and write ``benchmark.csv``, ``.md`` and ``.json``."""
    keep_freed_memory()
    place, names = pick_device(device), attacker or TABLE
    rows = []
    for sizing in product(*(map(int, one.split(",")) for one in (sizes, widths, batches))):
        for row in timings(*sizing, names, place):
            rows.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
    table = pd.DataFrame(rows)
    text, facts = as_markdown(table), provenance() | {"import_s": import_seconds()}
    write_text(output / "benchmark.csv", table.to_csv(index=False, float_format="%.6g"))
    write_text(output / "benchmark.md", text + "\n")
    write_json(output / "benchmark.json", facts)
    typer.echo(f"{text}\n{json.dumps(facts, indent=2)}")


if __name__ == "__main__":
    try:
        typer.run(benchmark)
    except SalattackError as error:
        raise SystemExit(str(error)) from None
