"""What every adapter asks of its inputs, and of the files that fill it."""

from collections.abc import Mapping

from torch import Tensor

from ..errors import SalattackError

WRAPPERS = ("generator", "G", "netG", "state_dict")


def require_sides(name: str, images: Tensor, divisor: int) -> None:
    """Refuse images (N, 3, H, W) whose sides the network cannot halve as often as it does.

    Raises:
        SalattackError: a side that ``divisor`` does not divide.
    """
    height, width = images.shape[-2:]
    if height % divisor or width % divisor:
        raise SalattackError(
            f"{name} takes images whose sides are multiples of {divisor}, got {width}×{height}; "
            "choose another image_size"
        )


def require_target(name: str, images: Tensor, target: Tensor, columns: int, what: str) -> None:
    """Refuse a target that is not one row of ``columns`` numbers (``what``) for each image.

    Raises:
        SalattackError: another shape; StarGAN's five attributes are the usual one.
    """
    wanted = (len(images), columns)
    if getattr(target, "shape", None) != wanted:
        found = tuple(getattr(target, "shape", ())) or type(target).__name__
        raise SalattackError(
            f"{name} takes a target of {wanted}, {what}, got {found}; "
            "see docs/own_generator.md for generators with targets of their own"
        )


def unwrapped(state: Mapping) -> dict:
    """Take the generator's parameters out of a checkpoint that wraps them under a name.

    What lies beside them there, discriminators and optimisers, is no part of the generator.
    DataParallel's "module." goes from every key.
    """
    inner = next((state[w] for w in WRAPPERS if isinstance(state.get(w), Mapping)), state)
    return {str(key).removeprefix("module."): value for key, value in inner.items()}


def without_statistics(state: Mapping) -> dict:
    """Drop running statistics, for networks that always normalise by the instance's own."""
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return {key: value for key, value in state.items() if not str(key).endswith(statistics)}


def shape_of(state: Mapping, key: str, dimensions: int) -> tuple[int, ...] | None:
    """Return the shape of a tensor of a state dict; None if it is not there, or not so deep."""
    shape = getattr(state.get(key), "shape", ())
    return tuple(shape) if len(shape) == dimensions else None
