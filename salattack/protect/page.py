"""The page of one protected photo: what changed, what breaks, and what would undo it.

It is one HTML file with its pictures inside. It has no script and fetches nothing. Everything is
measured on the file that was written, read back from disk.
"""

import base64
from collections.abc import Callable, Iterator
from io import BytesIO

from jinja2 import Environment, FileSystemLoader
from PIL import Image, ImageChops, ImageFilter

from ..images import to_pil
from ..metrics import SUCCESS, fake_damage
from ..runtime.files import RESOURCES
from .disruption import Protector
from .photo_file import as_jpeg, read_photo
from .protection import VIEW, FaceMeasure, Protected

AMPLIFIED = 10

# How visible a change is: words for at least this SSIM and at most this tint in 8-bit steps.
# They are for orientation and do not come from a study of viewers.
WORDS = (
    (0.98, 2, "changes hard to see at normal viewing"),
    (0.95, 5, "changes faintly visible"),
    (0.9, 10, "changes visible"),
    (-1.0, 255, "changes plainly visible"),
)


def _half(image: Image.Image) -> Image.Image:
    return image.resize([max(1, s // 2) for s in image.size], Image.Resampling.LANCZOS)


# What may be done to the file, applied to the face's part of it in photo pixels.
TRANSFORMS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "saved as JPEG, quality 75": lambda image: as_jpeg(image, quality=75),
    "saved as JPEG, quality 40": lambda image: as_jpeg(image, quality=40),
    "shrunk to half and back": lambda image: _half(image).resize(image.size),
    "blurred a little": lambda image: image.filter(ImageFilter.GaussianBlur(max(image.size) / 178)),
}


def in_words(done: Protected) -> str:
    """Return the figures in one line, those of the least protected face if there are several."""
    worst = min(done.faces, key=lambda face: (face.broken, -face.ssim))
    one = "the whole frame" if worst.place.face is None else "1 face"
    many = f"{len(done.faces)} faces, the least protected"
    return f"{many if len(done.faces) > 1 else one}: {_words(worst)}"


def _words(face: FaceMeasure) -> str:
    seen = next(w for least, most, w in WORDS if face.ssim >= least and face.tint <= most)
    broken = f"{face.broken} of {len(face.damage)} edits visibly broken"
    if whole := [name.replace("_", " ") for name, d in face.damage.items() if d <= SUCCESS]:
        broken += f", not {', '.join(whole)}"
    figures = f"PSNR {face.psnr:.1f} dB, SSIM {face.ssim:.2f}, tint {face.tint:.0f} of 255"
    return f"{seen}: {figures}; {broken}"


def body(done: Protected, protector: Protector, *, page: bool = False) -> str:
    """Return what the page shows as HTML: with its own style for a notebook, or the whole page.

    The photo and its protected file are read again; a SalattackError names one that is gone.
    """
    photos = [read_photo(path).pixels for path in (done.source, done.target)]
    environment = Environment(loader=FileSystemLoader(RESOURCES), autoescape=True)
    environment.filters["uri"] = _uri
    return environment.get_template("protected.html").render(
        done=done,
        page=page,
        protector=protector,
        sections=[_section(face, photos, protector) for face in done.faces],
        words=WORDS,
        success=SUCCESS,
        view=VIEW,
        whole=zip(("The photo", "The protected file"), photos, strict=True),
        summary=in_words(done),
    )


def _section(face: FaceMeasure, photos: list[Image.Image], protector: Protector) -> dict:
    """Return what the page shows of one face."""
    parts = [photo.crop(face.box) for photo in photos]
    difference = ImageChops.difference(*parts).point(lambda v: min(255, v * AMPLIFIED))
    mask = to_pil(face.mask[0].expand(3, -1, -1) * 2 - 1)
    names = "Photo", "Protected", f"Difference × {AMPLIFIED}", "Where it may change"
    fakes = ([to_pil(fake) for fake in fakes] for fakes in face.fakes)
    return {
        "words": _words(face),
        "face": face,
        "pictures": zip(names, (*parts, difference, mask), strict=True),
        "fakes": list(zip(face.damage.items(), *fakes, strict=True)),
        "undone": _undone(face, parts, protector),
    }


def _undone(
    face: FaceMeasure, parts: list[Image.Image], protector: Protector
) -> Iterator[tuple[str, float, int]]:
    """Yield what is left after each of `TRANSFORMS`: its name, mean damage and broken edits.

    The photo is transformed too, so that the transform's own effect does not count as damage.
    """
    yield "nothing", sum(face.damage.values()) / len(face.damage), face.broken
    for name, transform in TRANSFORMS.items():
        crops = (face.place.crop(transform(part), face.box[:2]) for part in parts)
        damage = fake_damage(*map(protector.fakes, crops))
        yield name, damage["damage_l2"].mean().item(), int(damage["success"].sum())


def _uri(image: Image.Image, longest: int) -> str:
    """Return a picture as a data URI, shrunk to at most ``longest`` pixels.

    JPEG at this quality, with the colours at full resolution, needs a third of what lossless WebP
    needs, and shows the same perturbation.
    """
    image = image.copy()
    image.thumbnail((longest, longest), reducing_gap=3)
    buffer = BytesIO()
    image.save(buffer, "jpeg", quality=90, subsampling=0, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
