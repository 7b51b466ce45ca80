"""Trainings that may be killed at any time: checkpoint, settings check, CSV logs and export."""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import SalattackError
from ..runtime.files import written_whole
from ..runtime.weights import fit, read_state_dict

CHECKPOINT_SECONDS = 45
LOG_EVERY = 20  # steps averaged in a row of losses.csv
LOSSES, EVALUATION = "losses.csv", "evaluation.csv"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to train and how. A resumed run may change what is marked ``compare=False``."""

    data: Path  # what to train on
    out: Path = field(compare=False)  # folder for checkpoint, logs and the exported weights
    init: Path | None = None  # weights to start from, of the same width; random by default
    steps: int = 4_000  # over which the learning rate goes through its schedule
    seed: int = 0  # of the initial weights and of every draw
    threads: int = field(default=1, compare=False)  # that torch may use

    def fill(self, network: nn.Module) -> None:
        """Give a network the weights to start from, if there are any."""
        if self.init is not None:
            fit(network, read_state_dict(self.init), Path(self.init).name)


class Resumable:
    """A training in a folder: its progress in ``checkpoint.pt``, and CSV logs.

    A killed and resumed run ends in the same weights as an uninterrupted one. A checkpoint with
    other settings, or an unusable one, raises SalattackError.

    ``parts`` are saved by name: "network" (what is trained), "average" (of its weights), then the
    optimizers and schedules. The state of ``rng`` is saved too.
    """

    def __init__(self, settings: Settings, parts: Mapping[str, Any], rng: torch.Generator) -> None:
        self.folder, self.parts, self.rng = Path(settings.out), parts, rng
        compared = (one.name for one in fields(settings) if one.compare)
        self.settings = {name: str(getattr(settings, name)) for name in compared}
        self.checkpoint = self.folder / "checkpoint.pt"
        self.step, self.sums = 0, {}
        if not self.checkpoint.exists():
            self.save()
        state = read_checkpoint(self.checkpoint)
        if other := [k for k, v in self.settings.items() if state["settings"].get(k) != v]:
            problem = f"{self.checkpoint} was written with another {', '.join(other)}"
            advice = "resume with the same settings or choose another folder"
            raise SalattackError(f"{problem}; {advice}")
        try:
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
        except (KeyError, ValueError, RuntimeError) as error:
            message = f"{self.checkpoint} does not fit this version; choose another folder"
            raise SalattackError(message) from error
        self.step, self.sums = state["step"], state["sums"]
        rng.set_state(state["rng"])
        for log in filter(Path.exists, (self.folder / LOSSES, self.folder / EVALUATION)):
            lines = log.read_text().splitlines(keepends=True)
            kept = [row for row in lines[1:] if self.step and int(row.split(",")[0]) <= self.step]
            log.write_text("".join(lines[:1] + kept))

    def save(self) -> None:
        """Write the checkpoint."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"settings": self.settings, "step": self.step, "sums": self.sums}
        with written_whole(self.checkpoint) as beside:
            torch.save(state | {"rng": self.rng.get_state()}, beside)

    def steps(self, total: int) -> Iterator[int]:
        """Yield the number of each step still to do; save every 45 s and after the last step."""
        saved = time.monotonic()
        self.bar = tqdm(range(self.step, total), initial=self.step, total=total, mininterval=10)
        for step in self.bar:
            yield step
            self.step = step + 1
            if self.step == total or time.monotonic() - saved > CHECKPOINT_SECONDS:
                self.save()
                saved = time.monotonic()

    def learn(self, terms: Mapping[str, Tensor], loss: Tensor, clip: float | None = None) -> None:
        """Take a step down the loss, whose gradient has at most the norm ``clip``.

        The loss's terms are added to ``losses.csv``: a row is the mean of 20 steps.
        """
        network, average, *steppers = self.parts.values()
        network.zero_grad()
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), clip)
        for stepper in steppers:
            stepper.step()
        average.update_parameters(network)
        for name, term in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + term.item() / LOG_EVERY
        if not all(map(math.isfinite, self.sums.values())):
            problem = f"the loss is not finite at step {self.step}"
            raise SalattackError(f"{problem}; lower the learning rate and choose another folder")
        if (self.step + 1) % LOG_EVERY == 0:
            self.append(LOSSES, self.step + 1, self.sums)
            self.bar.set_postfix({k: f"{v:.3f}" for k, v in self.sums.items()}, refresh=False)
            self.sums = {}

    def append(self, log: str, step: int, row: Mapping[str, object]) -> None:
        """Append a row to the CSV file ``log``; a new file gets a header."""
        path = self.folder / log
        pd.DataFrame([{"step": step, **row}]).to_csv(
            path, mode="a", header=not path.exists(), index=False, float_format="%.5g"
        )


def read_checkpoint(path: Path) -> dict:
    """Read a checkpoint of either training; another file is a SalattackError."""
    state = read_state_dict(path)
    if not {"average", "settings", "step", "sums", "rng"} <= state.keys():
        raise SalattackError(f"{Path(path).name} is not a checkpoint of a training; check the path")
    return state


def export(checkpoint: Path, path: Path, *, raw: bool = False) -> Path:
    """Write the average weights of a checkpoint (or the ``raw`` ones) as float16 safetensors."""
    state = read_checkpoint(checkpoint)["network" if raw else "average"]
    state = {k.removeprefix("module."): v for k, v in state.items() if k != "n_averaged"}
    halves = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in state.items()}
    with written_whole(path) as beside:
        save_file(halves, beside)
    return Path(path)
