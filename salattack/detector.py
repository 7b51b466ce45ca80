"""Finding faces and their eyes: OpenCV's cascades, behind one function that can be exchanged.

Why these: their weights come inside a package that is alive (OpenCV's 4.x releases, Apache-2.0),
it runs on any CPU next to today's NumPy, and on the shipped selfies and portraits they find every
face with its eyes within a tenth of the eyes' distance. The learnt detectors weighed against them
fetch their weights from the network, or want TensorFlow, old versions of torch, or a desktop's
libraries. The price: a face in profile, or covered, is missed; OpenCV 5 no longer has the cascades.
"""

import cmath
import math
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from .errors import SalattackError
from .faces import Box, Point

if TYPE_CHECKING:
    import cv2

SEEN_AT = 512, 1600  # long side in pixels at which faces are looked for: at least, at most
SMALLEST = 32  # px of the picture seen; the cascade was trained at 20
NEIGHBOURS = 5  # overlapping finds that make a candidate
SURE = 15  # that make a face without both eyes seen; shipped faces have 19 and more, errors ≤ 10
# Degrees, and the share of the pixels' side looked at: the cascade bears half of 30° by itself,
# and tilted small faces are not worth the time.
TILTS = (0, 1.0), (-30, 0.5), (30, 0.5)
EYES = (0.317 + 0.407j, 0.687 + 0.401j)  # in the box found: mean over shipped selfies, portraits
EYE_REACH = 0.13  # of the box's side: how far an eye may lie from there
LOOK = 300  # px: side of the box when eyes are looked for


class FoundFace(NamedTuple):
    """A face in a picture; points in its pixels, (0, 0) at the outer corner of the first.

    Attributes:
        left_eye: centre of the eye on the image's left.
        right_eye: the other eye.
        box: left, top, right, bottom of the face from brow to chin.
        score: eyes seen (0 to 2), and below the point how many overlapping finds agreed. An eye
            that was not seen is put where eyes are on average.
    """

    left_eye: Point
    right_eye: Point
    box: Box
    score: float


def find_faces(image: Image.Image) -> list[FoundFace]:
    """Return the faces in an upright RGB picture of any size, the largest first.

    Raises:
        SalattackError: OpenCV is not installed, or is a version without the cascades.
    """
    faces, _ = _cascades()
    low, high = SEEN_AT
    found: list[FoundFace] = []
    for tilt, share in TILTS:
        scale = min(high * share, max(low, max(image.size))) / max(image.size)
        size = [max(1, round(side * scale)) for side in image.size]
        seen = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2).convert("L")
        turned = seen.rotate(tilt, Image.Resampling.BILINEAR, expand=True, fillcolor=128)
        turn = cmath.exp(1j * math.radians(tilt))
        boxes, finds = faces.detectMultiScale2(
            np.asarray(turned), 1.1, NEIGHBOURS, minSize=(SMALLEST, SMALLEST)
        )
        for (left, top, side, _), agreed in zip(boxes, finds, strict=True):
            offset = complex(left + side / 2 - turned.width / 2, top + side / 2 - turned.height / 2)
            centre = complex(*size) / 2 + offset * turn
            face = _look_closer(image, centre / scale, side / scale, tilt)
            eyes = (*face.left_eye, *face.right_eye)
            inside = all(0 <= v <= end for v, end in zip(eyes, image.size * 2, strict=True))
            if inside and (face.score == 2 or agreed >= SURE):
                found.append(face._replace(score=face.score + min(agreed, 99) / 100))
    return _distinct(found)


@cache
def _cascades() -> "tuple[cv2.CascadeClassifier, cv2.CascadeClassifier]":
    try:
        import cv2

        folder = cv2.data.haarcascades
        names = "haarcascade_frontalface_alt2.xml", "haarcascade_eye_tree_eyeglasses.xml"
        faces, eyes = (cv2.CascadeClassifier(folder + name) for name in names)
    except (ImportError, AttributeError) as error:
        raise SalattackError(
            "finding faces needs OpenCV 4; install it by pip install 'salattack[protect]'"
        ) from error
    return faces, eyes


def _look_closer(image: Image.Image, centre: complex, side: float, tilt: float) -> FoundFace:
    """Find the eyes in the photo's own pixels, in an upright view of the box, `LOOK` px wide."""
    _, cascade = _cascades()
    half = side * 0.75  # room for the corners of a turned box
    corner = centre - complex(half, half)
    around = corner.real, corner.imag, corner.real + 2 * half, corner.imag + 2 * half
    outer = round(LOOK * 1.5)
    view = image.crop([round(v) for v in around])
    view = view.resize((outer, outer), Image.Resampling.BICUBIC, reducing_gap=2).convert("L")
    inner = (outer - LOOK) // 2
    view = view.rotate(tilt, Image.Resampling.BICUBIC).crop(
        (inner, inner, inner + LOOK, inner + round(LOOK * 0.62))
    )
    smallest, largest = (round(LOOK * 0.12),) * 2, (round(LOOK * 0.4),) * 2
    boxes = cascade.detectMultiScale(np.asarray(view), 1.05, 3, minSize=smallest, maxSize=largest)
    candidates = [complex(x + w / 2, y + h / 2) / LOOK for x, y, w, h in boxes]
    seen, points = 0, []
    for expected in EYES:
        eye = min(candidates, key=lambda c, e=expected: abs(c - e), default=expected)
        near = bool(candidates) and abs(eye - expected) < EYE_REACH
        seen += near
        offset = ((eye if near else expected) - (0.5 + 0.5j)) * side
        point = centre + offset * cmath.exp(1j * math.radians(tilt))
        points.append((point.real, point.imag))
    corners = centre - complex(side, side) / 2, centre + complex(side, side) / 2
    box = tuple(round(v) for c in corners for v in (c.real, c.imag))
    return FoundFace(points[0], points[1], box, float(seen))


def _distinct(found: list[FoundFace]) -> list[FoundFace]:
    """Keep the best of each set of overlapping finds."""
    kept: list[FoundFace] = []
    for face in sorted(found, key=lambda f: -f.score):
        left, top, right, bottom = face.box
        if all(
            math.hypot(left + right - a - c, top + bottom - b - d) > max(right - left, c - a)
            for a, b, c, d in (other.box for other in kept)
        ):
            kept.append(face)
    return sorted(kept, key=lambda f: f.box[0] - f.box[2])
