"""Small networks of the architectures that others published, and files as these publish them."""

from pathlib import Path

import h5py
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from salattack.generators import DPR, AgingGAN, AnimeGAN, CartoonGAN

AGING, SHINKAI, HOSODA = "aging-cacd-128", "cartoongan-shinkai", "cartoongan-hosoda"
ANIME, DPR_512 = "animeganv3-cute", "dpr-512"
SMALL = {
    AGING: lambda: AgingGAN(4, 8, 2),
    SHINKAI: lambda: CartoonGAN(4, 2),
    ANIME: lambda: AnimeGAN(4),
    DPR_512: lambda: DPR((4, 4, 8, 8, 12), lit=5, hidden=6),
}


def small(name):
    """A narrow network with statistics of its own, the same in every test."""
    torch.manual_seed(0)
    network = SMALL[name]().eval()
    for key, value in network.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif key.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif value.ndim == 4:  # no normalisation keeps the scale everywhere
            torch.nn.init.kaiming_normal_(value)
    return network


def targets(name, n):
    if name == AGING:
        return torch.arange(n)[:, None].float() + 1
    return torch.randn(n, 9) if name == DPR_512 else torch.zeros(n, 1)


def written(name, network, folder):
    """The network's state as its publisher's file, by a mapping written out here on its own."""
    write = {AGING: _keras, SHINKAI: _npy, ANIME: _initialisers, DPR_512: _t7}[name]
    return write({key: value.numpy() for key, value in network.state_dict().items()}, folder)


def _keras(state, folder):
    path = folder / "generator.h5"
    arrays = {
        **{"running_mean": "moving_mean", "running_var": "moving_variance", "bias": "bias"},
        "weight": "kernel",
    }
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = "print('run')"
        for key, value in state.items():
            layer, _, array = key.rpartition(".")
            if array == "num_batches_tracked":
                continue
            array = arrays[array]
            normalises = layer.startswith("norms") or layer.endswith("_BN")
            if normalises:
                array = {"kernel": "gamma", "bias": "beta"}.get(array, array)
            if value.ndim == 4:
                value = value.transpose(2, 3, 1, 0)
                if "depthwise" in layer:
                    array, value = "depthwise_kernel", value.transpose(0, 1, 3, 2)
            kind, _, rest = layer.partition(".")
            number, _, part = rest.partition(".")
            if kind == "convs":
                layer = f"conv2d_{int(number) + 5}"
            elif kind == "norms":
                layer = f"batch_normalization_{int(number) + 3}"
            else:
                layer = f"block_{number}_{part}" if int(number) else f"expanded_conv_{part}"
            file[f"model_weights/{layer}/{layer}/{array}:0"] = value
    return path


def _npy(state, folder):
    folder = folder / "cartoongan-shinkai"
    folder.mkdir()
    for key, value in state.items():
        if key.startswith("in"):
            key = key.replace("weight", "scale").replace("bias", "shift")
        np.save(folder / f"{key}.npy", value)
    return folder


def _initialisers(state, folder):
    named = []
    for key, value in state.items():
        part, number, array = key.split(".")
        array = {"weight": "weights", "bias": "bias"}[array]
        folded = f"{part}.{number}.bias" in state
        end = f"Conv2D_{array}_fused_bn" if folded else f"{array}/read:0"
        conv = "Conv" if number == "0" else f"Conv_{number}"
        named.append(numpy_helper.from_array(value, f"generator/{part}/{conv}/{end}"))
    named.append(numpy_helper.from_array(np.array([0, 3, 3, 0]), "pad_const__6"))
    graph = helper.make_graph([], "main", [], [], named)
    onnx.save(helper.make_model(graph), folder / "AnimeGANv3_tiny_Cute.onnx")
    return folder / "AnimeGANv3_tiny_Cute.onnx"


def _t7(state, folder):
    """With what the authors' network holds besides: used for nothing, or stored twice."""
    state = {key: torch.from_numpy(np.array(value)) for key, value in state.items()}
    more = {"light.predict_FC1.weight": torch.zeros(6, 5, 1, 1)}
    more["HG3.middle.upper.shortcuts.weight"] = torch.zeros(4, 4, 1, 1)
    more |= {
        key.replace("HG3.middle", "HG2"): value
        for key, value in state.items()
        if key.startswith("HG3.middle")
    }
    torch.save(state | more, folder / "trained_model_03.t7", _use_new_zipfile_serialization=False)
    return folder / "trained_model_03.t7"


def graph_file(
    path: Path, nodes, inputs=("x",), outputs=("y",), shape=("n", 3, "h", "w"), opset=13, **arrays
):
    """An ONNX model of some nodes; ``arrays`` are its initialisers."""

    def value(name):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    constants = [numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items()]
    out = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [*"abcd"]) for n in outputs]
    graph = helper.make_graph(nodes, "g", [value(n) for n in inputs], out, constants)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path
