"""Photos of faces as tensors, with their labels: by name, or from a folder."""

from collections.abc import Sequence
from pathlib import Path

from ..errors import SalattackError
from .celeba import celeba, is_celeba
from .sets import Faces, folder
from .shipped import openpeople


def load_faces(
    source: str | Path = "openpeople",
    *,
    kind: str | Sequence[str] | None = None,
    n_images: int | None = None,
    first: Sequence[str] = (),
    image_size: int = 128,
    split: str | None = None,
    seed: int = 0,
) -> Faces:
    """Return a set of faces by name or path; see `openpeople`, `celeba` and `folder`.

    Args:
        source: "openpeople", a folder in CelebA's layout (it has ``list_attr_celeba.txt``, or the
            pictures' folder or zip), or a plain folder of photos.
        kind: of `FACE_KINDS`, for openpeople only.
        n_images: take the first so many, or all there are if fewer; all when None.
        first: ids of faces to put first, where the set has them.
        image_size: side of the images in pixels.
        split: of CelebA ("stargan" when None); of a plain folder, None (by name) or "shuffled".
        seed: of the shuffled orders: the first n faces are part of the first n + 1.

    Raises:
        SalattackError: what the three raise; ``n_images`` less than 1.
    """
    if source == "openpeople":
        if split is not None:
            problem = "only CelebA and plain folders have splits"
            raise SalattackError(f"{problem}; leave out the split {split!r}")
        faces = openpeople(kind, image_size)
    elif kind is not None:
        raise SalattackError(f"only openpeople has kinds of faces; leave out the kind {kind!r}")
    elif is_celeba(source):
        faces = celeba(source, image_size, "stargan" if split is None else split, seed)
    else:
        faces = folder(source, image_size, split, seed)
    faces = faces.led_by(first) if first else faces
    return faces if n_images is None else faces.subset(n_images)
