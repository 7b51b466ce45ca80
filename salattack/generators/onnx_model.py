"""Any generator that is published as ONNX: one image in, an image of the same shape out."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SalattackError, one_of
from ..runtime.device import frozen, pick_device
from ..runtime.formats import needed, said
from ..runtime.weights import Model

LAYOUTS = ("nchw", "nhwc")
OPSET = 17  # the newest whose operators onnx2torch knows
TRIAL_SIDE = 128  # of the image that a model of any size is tried with


class OnnxGenerator(nn.Module):
    """A converted ONNX graph, asked as every other generator.

    Args:
        network: what the converter made of the graph.
        name: of the file, for messages.
        sides: (H, W) that the graph is fixed to; None where it takes any.
        single: whether the graph takes one image at a time.
        layout: "nchw" or "nhwc", of the graph's input and output.
        value_range: lowest and highest value of a pixel, in and out.
    """

    def __init__(
        self,
        network: nn.Module,
        name: str,
        sides: tuple[int, int] | None = None,
        single: bool = False,
        layout: str = "nchw",
        value_range: Sequence[float] = (-1, 1),
    ) -> None:
        super().__init__()
        self.network, self.name, self.sides, self.single = network, name, sides, single
        self.nhwc, (self.low, self.high) = layout == "nhwc", value_range

    def forward(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Edit (N, 3, H, W) images in [-1, 1]; same shape and range. The ``target`` is ignored.

        Raises:
            SalattackError: sides that the graph was not exported for.
        """
        if self.sides and tuple(images.shape[-2:]) != self.sides:
            found, wanted = ("×".join(map(str, s)) for s in (images.shape[-2:], self.sides))
            raise SalattackError(
                f"{self.name} takes images of {wanted}, got {found}; choose another image_size"
            )
        half = (self.high - self.low) / 2
        x = (images + 1) * half + self.low
        x = x.permute(0, 2, 3, 1) if self.nhwc else x.contiguous()
        parts = x.split(1) if self.single else [x]
        y = torch.cat([self.network(part) for part in parts])
        y = y.permute(0, 3, 1, 2) if self.nhwc else y
        return ((y - self.low) / half - 1).clamp(-1, 1)


@dataclass(frozen=True, kw_only=True)
class OnnxModel(Model):
    """The registry entry of all ONNX files."""

    build: Callable[..., nn.Module] = OnnxGenerator
    file: str = "model.onnx"
    sha256: str | None = None
    licence: str = "the file's own"
    source: str = "any export of an image-to-image model"
    shipped: bool = False
    image_size: int = TRIAL_SIDE

    def load(
        self,
        weights: str | Path | None = None,
        device: str = "auto",
        *,
        layout: str = "nchw",
        value_range: Sequence[float] = (-1, 1),
    ) -> nn.Module:
        """Convert an ONNX file to a frozen generator, and try it on one image.

        Args:
            weights: the file.
            device: see `pick_device`.
            layout: "nchw" or "nhwc", of the file's input and output.
            value_range: lowest and highest value of a pixel, in and out: (-1, 1), (0, 1), (0, 255).

        Raises:
            SalattackError: an unreadable file, an operator that cannot be converted, another
                number of inputs or outputs than one, a result of another shape, a graph that
                cannot be differentiated.
        """
        if layout not in LAYOUTS:
            raise one_of("layout", layout, LAYOUTS)
        if len(value_range) != 2 or not value_range[0] < value_range[1]:
            raise SalattackError(f"value_range must be (lowest, highest), got {value_range}")
        if weights is None:
            raise SalattackError("give the ONNX file: load_generator('onnx', weights='model.onnx')")
        path = Path(weights)
        model = _read(path)
        shape = _image_shape(model, path.name)
        if layout == "nhwc":
            shape = [shape[i] for i in (0, 3, 1, 2)]
        if shape[1] != 3 and (shape[1] or 3 in shape[2:]):
            raise SalattackError(
                f"{path.name} does not take RGB images in layout {layout}; "
                "choose the other layout or another model"
            )
        sides = (shape[2], shape[3]) if shape[2] and shape[3] else None
        generator = OnnxGenerator(
            _converted(model, path.name), path.name, sides, shape[0] == 1, layout, value_range
        )
        generator = frozen(generator, torch.device("cpu"))
        _try(generator, model)
        return frozen(generator, pick_device(device))


def _read(path: Path) -> Any:
    """Return the ModelProto of a file, in `OPSET` or older where onnx can convert it."""
    onnx = needed("onnx", f"reading {path.name}")
    if not path.is_file():
        raise SalattackError(f"no weights file at {path}; check the path")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's, onnx' and the file system's
        raise SalattackError(
            f"{path.name} is not a readable ONNX model ({said(error)}); fetch or export it again"
        ) from error
    if any(one.version > OPSET for one in model.opset_import if one.domain in ("", "ai.onnx")):
        with suppress(Exception):  # the converter to torch will name what is in the way
            return onnx.version_converter.convert_version(model, OPSET)
    return model


def _image_shape(model: Any, name: str) -> list[int]:
    """Return the four sides of a model's one input, 0 for those that it leaves open."""
    constants = {one.name for one in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in constants]
    for what, found in (("input", inputs), ("output", model.graph.output)):
        if len(found) != 1:
            names = ", ".join(one.name for one in found)
            raise SalattackError(
                f"{name} has {len(found)} {what}s ({names}), and an ONNX generator has one image "
                f"as its {what}; export it with the others bound"
            )
    shape = [one.dim_value for one in inputs[0].type.tensor_type.shape.dim]
    if len(shape) != 4:
        raise SalattackError(f"{name} takes an input of {len(shape)} dimensions, not images of 4")
    return shape


def _converted(model: Any, name: str) -> nn.Module:
    onnx2torch = needed("onnx2torch", f"converting {name}")
    try:
        return onnx2torch.convert(model)
    except Exception as error:  # of the converter of one operator
        raise _unconvertible(name, _operator_without_converter(model), error) from error


def _operator_without_converter(model: Any) -> str:
    """Convert operator by operator up to the one that fails, and return its type."""
    from onnx2torch.node_converters import get_converter
    from onnx2torch.onnx_graph import OnnxGraph

    versions = {one.domain: one.version for one in model.opset_import}
    graph = OnnxGraph(model.graph)
    for node in graph.nodes.values():
        try:
            version = versions[node.domain]
            get_converter(node.operation_type, version, node.domain)(node, graph)
        except Exception:
            return node.operation_type
    return "graph"


def _unconvertible(name: str, operator: str, error: Exception) -> SalattackError:
    return SalattackError(
        f"{name} cannot be converted: onnx2torch fails at its operator {operator} ({said(error)}); "
        f"export the model in opset {OPSET} or without it, or write an adapter"
    )


def _try(generator: OnnxGenerator, model: Any) -> None:
    """Edit one image of noise and differentiate it, so that what cannot work is refused now."""
    from onnx2torch.onnx_graph import OnnxGraph

    name, (height, width) = generator.name, generator.sides or (TRIAL_SIDE, TRIAL_SIDE)
    nodes, at = OnnxGraph(model.graph).nodes, ["graph"]
    for key, module in generator.network.named_modules():
        if key in nodes:
            kind = nodes[key].operation_type
            module.register_forward_pre_hook(lambda *_, kind=kind: at.append(kind))
    noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    images = (noise - 0.5).requires_grad_()
    try:
        result = generator(images)
    except Exception as error:
        raise _unconvertible(name, at[-1], error) from error
    finally:
        for module in generator.network.modules():
            module._forward_pre_hooks.clear()
    if result.shape != images.shape:
        found = "×".join(map(str, result.shape))
        raise SalattackError(
            f"{name} makes {found} of an image of 1×3×{height}×{width}; "
            "an attack needs a result of the image's shape"
        )
    gradient = None
    with suppress(RuntimeError):  # no way back to the image, or an operator without derivative
        (gradient,) = torch.autograd.grad(result.square().sum(), images)
    if gradient is None or not gradient.isfinite().all() or not gradient.any():
        raise SalattackError(
            f"{name} is not differentiable in its image, so an attack has no gradient to follow; "
            "check value_range, or export it without rounding and integer operators"
        )
