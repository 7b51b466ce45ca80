"""Finding faces and their eyes: YuNet (Wu et al., 2023), run by OpenCV.

The weights are in the package; their card, `weights/yunet.md`, has the measurements. Faces tilted
by up to 30 degrees are found. Of others some are missed, or found with their eyes in the wrong
place: turn such a photo upright first (EXIF orientation is applied on reading).
"""

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from ..errors import SalattackError
from ..faces.alignment import Box, Point
from ..runtime.files import sha256
from ..runtime.weights import SHIPPED_WEIGHTS

if TYPE_CHECKING:
    import cv2

WEIGHTS = "yunet.onnx"
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
SCORE = 0.85  # of a face: see the card for what lower and higher thresholds find
OVERLAP = 0.3  # intersection over union above which two finds are one face
SIDES = 320, 1600  # px: the picture's longer side as the network sees it
CLOSE = 96, 128, 192, 256  # px: sides of the square around a face in which its eyes are averaged
AROUND = 2.0  # side of that square, relative to the face's box


class FoundFace(NamedTuple):
    """A face in a picture; points in its pixels, (0, 0) at the outer corner of the first."""

    left_eye: Point  # centre of the eye that is on the left when the face is upright
    right_eye: Point
    box: Box  # left, top, right, bottom of the face
    score: float  # the network's, from `SCORE` to 1


def find_faces(image: Image.Image) -> list[FoundFace]:
    """Return the faces in an upright RGB picture of any size, the largest first.

    Without OpenCV, or with a damaged file of the network, a SalattackError is raised.
    """
    finds = np.concatenate([_finds(image, side) for side in SIDES])
    import cv2

    best = cv2.dnn.NMSBoxes(finds[:, :4].tolist(), finds[:, 14].tolist(), SCORE, OVERLAP)
    found = []
    for row in finds[np.asarray(best, int).ravel()]:
        eyes = _eyes(image, row)
        if ((eyes >= 0) & (eyes <= image.size)).all():
            left, top, width, height = row[:4].tolist()
            box = round(left), round(top), round(left + width), round(top + height)
            found.append(FoundFace(*map(tuple, eyes.tolist()), box, float(row[14])))
    return sorted(found, key=lambda f: f.box[0] - f.box[2])


def _finds(image: Image.Image, side: int) -> np.ndarray:
    """Return the finds in a picture that is resized to a longer side of ``side`` pixels.

    They are (N, 15) in pixels of ``image``: left, top, width and height of the box, five points of
    which the first two are the eyes, and the score.
    """
    network = _network()
    size = [max(1, round(length * side / max(image.size))) for length in image.size]
    seen = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2)
    network.setInputSize(size)
    finds = network.detect(np.ascontiguousarray(np.asarray(seen)[..., ::-1]))[1]
    scale = np.append(np.tile(np.divide(image.size, size), 7), 1)
    return np.empty((0, 15)) if finds is None else finds * scale


def _eyes(image: Image.Image, face: np.ndarray) -> np.ndarray:
    """Return the eyes (2, 2) of a find, averaged over closer views and their mirror images.

    The network underestimates a tilt. So views are turned upright by the eyes found so far, and
    the last of three rounds counts.
    """
    eyes, half = face[4:8].reshape(2, 2) @ (1, 1j), AROUND * max(face[2:4]) / 2
    centre = face[:2] + face[2:4] / 2
    corners = np.round([centre - half, centre + half]).astype(int)
    square = image.crop(corners.ravel().tolist())
    corner, middle = corners[0] @ (1, 1j), complex(*square.size) / 2
    for sides in (CLOSE[1:2], CLOSE[1:2], CLOSE):
        angle = np.angle(eyes[1] - eyes[0])
        view = square.rotate(np.degrees(angle), Image.Resampling.BICUBIC)
        seen = []
        for side in sides:
            for mirrored in (False, True):
                picture = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else view
                finds = _finds(picture, side)
                off = np.abs((finds[:, :2] + finds[:, 2:4] / 2) @ (1, 1j) - middle)
                if len(finds) and off.min() < half / 3:
                    pair = finds[off.argmin(), 4:8].reshape(2, 2) @ (1, 1j) - middle
                    seen.append(-pair[::-1].conj() if mirrored else pair)
        if seen:
            eyes = np.mean(seen, 0) * np.exp(1j * angle) + middle + corner
    return np.stack([eyes.real, eyes.imag], 1)


@cache
def _network() -> "cv2.FaceDetectorYN":
    try:
        import cv2
    except ImportError as error:
        message = "finding faces needs OpenCV; install it by pip install 'salattack[protect]'"
        raise SalattackError(message) from error
    path = SHIPPED_WEIGHTS / WEIGHTS
    if not path.is_file() or sha256(path) != SHA256:
        raise SalattackError(f"{WEIGHTS} is missing or damaged; reinstall the package")
    return cv2.FaceDetectorYN.create(str(path), "", (320, 320), SCORE, OVERLAP)
