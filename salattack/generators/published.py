"""The registry's entries of generators that others trained and published, and of ONNX files."""

from types import ModuleType

from ..edits import EditSet
from ..weights import Model
from . import aging, animegan, cartoongan, cyclegan, dpr
from .onnx_model import OnnxModel


def _found(
    adapter: ModuleType,
    file: str,
    sha256: str,
    licence: str,
    source: str,
    size: int,
    edits: EditSet,
) -> Model:
    """Return the entry of a published generator whose file users bring themselves."""
    return Model(
        build=adapter.like,
        prepare=adapter.prepare,
        file=file,
        sha256=sha256,
        licence=licence,
        source=f"github.com/{source}",
        shipped=False,
        image_size=size,
        edits=edits,
    )


def _cartoongan(style: str, sha256: str) -> Model:
    return _found(
        cartoongan,
        f"cartoongan-{style.lower()}",
        sha256,
        "academic use (the authors' weights)",
        "mnicnc404/CartoonGan-tensorflow @ 2f26a525, "
        f"style_transfer/cartoongan/pretrained_weights/{style.lower()}",
        128,
        cyclegan.only(style),
    )


PUBLISHED: dict[str, Model] = {
    "aging-cacd-128": _found(
        aging,
        "generator.h5",
        "41f1af52921485cd68ddabef72d155d4e5071b003656f5896b35b289a17f7a62",
        "none in the tree at that commit; MIT in the author's repository today",
        "harsha-sharechat-account/Fast-AgingGAN @ f1d049c, models/generator.h5",
        128,
        aging.EDITS,
    ),
    "cartoongan-shinkai": _cartoongan(
        "Shinkai", "c01e21b9aa09a73e0a55b08ca5554682659ae90fe71b9c042d9db9d7c6baabb0"
    ),
    "cartoongan-hosoda": _cartoongan(
        "Hosoda", "b1fd387a3f74263eb3a85cbc8dbf89ee8e315627c044c854b93c3d4c4d80b2a8"
    ),
    "animeganv3-cute": _found(
        animegan,
        "AnimeGANv3_tiny_Cute.onnx",
        "3ef02d6b2939a0e81621abc5beb0e741bb58654570033cd0e97f6b6ef37c1171",
        "academic and non-commercial use",
        "tuanmjnh/AnimeGANv3_Video @ 68b721c8, resources/AnimeGANv3_tiny_Cute.onnx",
        256,
        cyclegan.only("Cute"),
    ),
    "dpr-512": _found(
        dpr,
        "trained_model_03.t7",
        "950157bf950b899eba7bb1a6439d602e89fef9d180e235d034774d6d8583bc51",
        "for research purpose only",
        "zhhoper/DPR @ 737efada, trained_model/trained_model_03.t7",
        512,
        dpr.EDITS,
    ),
    "onnx": OnnxModel(edits=cyclegan.only("Edit")),
}
