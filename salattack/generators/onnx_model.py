"""Any generator that is published as ONNX: one image in, an image of the same shape out."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from traceback import walk_tb
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import SalattackError, one_of
from ..runtime.device import frozen
from ..runtime.weights import Entry, needed, said

LAYOUTS = ("nchw", "nhwc")
OPSET = 17  # the newest whose operators onnx2torch knows
TRIAL_SIDE = 128  # of the image that a model of any size is tried with


class OnnxGenerator(nn.Module):
    """A converted ONNX graph, asked as every other generator.

    Args:
        path: the file.
        layout: "nchw" or "nhwc", of the file's input and output.
        value_range: lowest and highest value of a pixel, in and out: (-1, 1), (0, 1), (0, 255).

    Raises:
        SalattackError: an unreadable file, one that cannot be converted or differentiated, more
            than one input or output, a result of another shape.
    """

    def __init__(
        self, path: Path, layout: str = "nchw", value_range: Sequence[float] = (-1, 1)
    ) -> None:
        super().__init__()
        if layout not in LAYOUTS:
            raise one_of("layout", layout, LAYOUTS)
        if len(value_range) != 2 or not value_range[0] < value_range[1]:
            raise SalattackError(f"value_range must be (lowest, highest), got {value_range}")
        self.name, self.nhwc = path.name, layout == "nhwc"
        self.low, self.half = value_range[0], (value_range[1] - value_range[0]) / 2
        model = _opened(path)
        constants = {one.name for one in model.graph.initializer}
        inputs = [one for one in model.graph.input if one.name not in constants]
        for what, found in (("input", inputs), ("output", model.graph.output)):
            if len(found) != 1:
                names = ", ".join(one.name for one in found)
                advice = f"export it with one image as its {what} and the others bound"
                problem = f"{self.name} has {len(found)} {what}s ({names})"
                raise SalattackError(f"{problem}; {advice}")
        shape = [one.dim_value for one in inputs[0].type.tensor_type.shape.dim]  # 0 where left open
        if len(shape) != 4:
            dimensions = f"{len(shape)} dimensions, not images of 4"
            raise SalattackError(f"{self.name} takes an input of {dimensions}")
        channels = shape.pop(3 if self.nhwc else 1)
        if channels != 3 and (channels or 3 in shape[1:]):
            lacking = f"{self.name} does not take RGB images in layout {layout}"
            raise SalattackError(f"{lacking}; choose the other layout or another model")
        self.single = shape[0] == 1  # whether the graph takes one image at a time
        self.sides = tuple(shape[1:]) if all(shape[1:]) else None  # (H, W), where they are fixed
        self.network = _in_torch(model, self.name)
        frozen(self, torch.device("cpu"))
        self._try()

    def forward(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Edit (N, 3, H, W) images in [-1, 1]; same shape and range. The ``target`` is ignored.

        Sides that the graph was not exported for are a SalattackError.
        """
        if self.sides and tuple(images.shape[-2:]) != self.sides:
            found, wanted = ("×".join(map(str, s)) for s in (images.shape[-2:], self.sides))
            sizes = f"{self.name} takes images of {wanted}, got {found}"
            raise SalattackError(f"{sizes}; choose another image_size")
        x = (images + 1) * self.half + self.low
        x = x.permute(0, 2, 3, 1) if self.nhwc else x.contiguous()
        y = torch.cat([self.network(part) for part in (x.split(1) if self.single else [x])])
        y = y.permute(0, 3, 1, 2) if self.nhwc else y
        return ((y - self.low) / self.half - 1).clamp(-1, 1)

    def _try(self) -> None:
        """Edit one image of noise and differentiate it, so that what cannot work is refused now."""
        height, width = self.sides or (TRIAL_SIDE, TRIAL_SIDE)
        noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
        images = (noise - 0.5).requires_grad_()
        try:
            result = self(images)
        except Exception as error:
            raise _unconvertible(self.name, error) from error
        if result.shape != images.shape:
            found = "×".join(map(str, result.shape))
            made = f"{self.name} makes {found} of an image of 1×3×{height}×{width}"
            raise SalattackError(f"{made}; an attack needs a result of the image's shape")
        gradient = torch.zeros(1)
        with suppress(RuntimeError):  # no way back to the image, or an operator without derivative
            (gradient,) = torch.autograd.grad(result.square().sum(), images)
        if not gradient.isfinite().all() or not gradient.any():
            advice = "check value_range, or export it without rounding and integer operators"
            raise SalattackError(f"{self.name} is not differentiable in its image; {advice}")


@dataclass(frozen=True, kw_only=True)
class OnnxEntry(Entry):
    """The registry entry of all ONNX files, whose options are those of `OnnxGenerator`."""

    build: Callable[..., nn.Module] = OnnxGenerator
    file: str = "model.onnx"
    licence: str = "the file's own"
    source: str = "any export of an image-to-image model"
    options: ClassVar[tuple[str, ...]] = ("layout", "value_range")

    def _network(self, source: Path, **options: Any) -> nn.Module:
        return self.build(source, **options)


def _opened(path: Path) -> Any:
    """Return the ModelProto of a file, in `OPSET` or older where onnx can convert it."""
    onnx = needed("onnx", f"reading {path.name}")
    if not path.is_file():
        raise SalattackError(f"no weights file at {path}; check the path")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's, onnx' and the file system's
        what = f"{path.name} is not a readable ONNX model ({said(error)})"
        raise SalattackError(f"{what}; fetch or export it again") from error
    if any(one.version > OPSET for one in model.opset_import if one.domain in ("", "ai.onnx")):
        with suppress(Exception):  # the converter to torch will name what is in the way
            return onnx.version_converter.convert_version(model, OPSET)
    return model


def _in_torch(model: Any, name: str) -> nn.Module:
    """Return a model as a torch module, each operator in it with its ``operation_type``."""
    convert = needed("onnx2torch", f"converting {name}").convert
    from onnx2torch.onnx_graph import OnnxGraph

    try:
        network = convert(model)
    except Exception as error:
        raise _unconvertible(name, error) from error
    nodes = OnnxGraph(model.graph).nodes
    for key, module in network.named_modules():
        module.operation_type = nodes[key].operation_type if key in nodes else "graph"
    return network


def _unconvertible(name: str, error: Exception) -> SalattackError:
    """Name the operator that a converter (``onnx_node``) or a module (``self``) failed at."""
    kind = "graph"
    for frame, _ in walk_tb(error.__traceback__):
        seen = frame.f_locals
        kind = getattr(seen.get("onnx_node", seen.get("self")), "operation_type", kind)
    problem = f"onnx2torch fails at its operator {kind} ({said(error)})"
    advice = f"export the model in opset {OPSET} or without it, or write an adapter"
    return SalattackError(f"{name} cannot be converted: {problem}; {advice}")
