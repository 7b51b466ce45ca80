"""Which device computes, and networks made ready for attacks."""

import ctypes
import os
from contextlib import suppress

import torch
from torch import nn

from ..errors import one_of


def frozen(network: nn.Module, device: torch.device) -> nn.Module:
    """Return a network without gradients to its parameters, in eval mode, on a device.

    On a CPU the channels of a pixel lie side by side, which its convolutions are quickest with.
    """
    network = network.requires_grad_(False).eval().to(device)
    if device.type != "cpu":
        return network
    return network.to(memory_format=torch.channels_last)


def keep_freed_memory() -> None:
    """Have glibc keep freed memory, in this process and those that it starts (mallopt(3)).

    An attack on a CPU spends a tenth of its time in the page faults of getting it back. The whole
    process then keeps the most memory that it ever used, so only the command line asks for this.
    """
    for option, name, size in ((-3, "MMAP", 2**28), (-1, "TRIM", 2**30)):
        os.environ.setdefault(f"MALLOC_{name}_THRESHOLD_", str(size))  # notebooks' kernels read it
        with suppress(AttributeError, OSError, TypeError):
            ctypes.CDLL(None).mallopt(option, size)


def pick_device(device: str = "auto") -> torch.device:
    """Return the device for "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1", "mps" ...

    One that torch does not know or this machine does not have is a SalattackError.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        here = ["auto", "cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise one_of("device on this machine", device, here) from error
    return chosen
