"""The page of one protected photo: what changed, what breaks, and what would undo it.

One HTML file that stands alone: pictures inside, no script, nothing fetched. Everything is
measured on the file that was written, read back from disk.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from jinja2 import Environment
from PIL import Image, ImageChops, ImageFilter

from ..images import to_pil
from ..metrics import SUCCESS, fake_damage
from ..runtime.files import written_whole
from .disruption import Protector
from .photo_file import read_photo
from .placement import Place
from .protection import FaceMeasure, Protected

SHOWN, PART = 640, 400  # px: long side on the page of the photo, and of a face's part
AMPLIFIED = 10

# How visible a change is, by SSIM from so much up and a tint of at most so many 8-bit steps: words
# for orientation, no study of viewers.
WORDS = (
    (0.98, 2, "changes invisible at normal viewing"),
    (0.95, 5, "changes faintly visible"),
    (0.9, 10, "changes visible"),
    (-1.0, 255, "changes plainly visible"),
)


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def _half(image: Image.Image) -> Image.Image:
    return image.resize([max(1, s // 2) for s in image.size], Image.Resampling.LANCZOS)


# What happens to photos on their way, done to the face's part of the file; in photo pixels.
TRANSFORMS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "nothing": lambda image: image,
    "saved as JPEG, quality 75": lambda image: _jpeg(image, 75),
    "saved as JPEG, quality 40": lambda image: _jpeg(image, 40),
    "shrunk to half and back": lambda image: _half(image).resize(image.size),
    "blurred a little": lambda image: image.filter(ImageFilter.GaussianBlur(max(image.size) / 178)),
}


def in_words(done: Protected) -> str:
    """Return the figures in one line, worst face first where there are several."""
    worst = min(done.faces, key=lambda face: (face.broken, -face.ssim))
    what = "the whole frame" if worst.face is None else "1 face"
    if len(done.faces) > 1:
        what = f"{len(done.faces)} faces, the least protected"
    return f"{what}: {_words(worst)}"


def _words(face: FaceMeasure) -> str:
    seen = next(w for least, most, w in WORDS if face.ssim >= least and face.tint <= most)
    broken = f"{face.broken} of {len(face.damage)} edits visibly broken"
    return f"{seen}: SSIM {face.ssim:.2f}, tint {face.tint:.0f} of 255; {broken}"


@dataclass(frozen=True)
class _Section:
    words: str
    face: FaceMeasure
    pictures: dict[str, str]
    fakes: list[tuple[str, str, str, float]]
    undone: list[tuple[str, float, int]]


def write_report(done: Protected, protector: Protector, page: Path) -> None:
    """Write the page of a protected photo.

    Args:
        done: what `protect_photo` returned; its files are read again.
        protector: the one that was used.
        page: an HTML file; an earlier one is replaced.

    Raises:
        SalattackError: a file that is gone, or a place that cannot be written to.
    """
    text = (
        Environment(autoescape=True).from_string(PAGE).render(done=done, body=body(done, protector))
    )
    with written_whole(page) as beside:
        beside.write_text(text, encoding="utf-8")


def body(done: Protected, protector: Protector) -> str:
    """Return what the page of a protected photo shows, as HTML with its own style.

    Args:
        done: what `protect_photo` returned; its files are read again.
        protector: the one that was used.

    Raises:
        SalattackError: a file that is gone.
    """
    before, after = (read_photo(path).pixels for path in (done.source, done.target))
    sections = []
    for place, face, mask in zip(done.places, done.faces, done.masks, strict=True):
        parts = [image.crop(face.box) for image in (before, after)]
        crops = [place.crop(image) for image in (before, after)]
        fakes = [protector.fakes(crop) for crop in crops]
        difference = ImageChops.difference(*parts).point(lambda v: min(255, v * AMPLIFIED))
        sections.append(
            _Section(
                _words(face),
                face,
                {
                    "Photo": _picture(parts[0], PART),
                    "Protected": _picture(parts[1], PART),
                    f"Difference × {AMPLIFIED}": _picture(difference, PART),
                    "Where it may change": _picture(to_pil(mask[0].expand(3, -1, -1) * 2 - 1)),
                },
                [
                    (name.replace("_", " "), _picture(to_pil(a)), _picture(to_pil(b)), d)
                    for name, a, b, d in zip(face.damage, *fakes, face.damage.values(), strict=True)
                ],
                _undone(parts, place, face, protector),
            )
        )
    text = Environment(autoescape=True).from_string(BODY)
    return text.render(
        done=done,
        protector=protector,
        attack=protector.attack,
        sections=sections,
        words=WORDS,
        success=SUCCESS,
        whole=[_picture(image) for image in (before, after)],
        summary=in_words(done),
    )


def _undone(
    parts: list[Image.Image], place: Place, face: FaceMeasure, protector: Protector
) -> list[tuple[str, float, int]]:
    """Return what is left after each of `TRANSFORMS`: mean damage and broken edits.

    Against the fakes of the photo that went through the same.
    """
    rows = []
    for name, transform in TRANSFORMS.items():
        pair = [protector.fakes(place.crop(transform(part), face.box[:2])) for part in parts]
        damage = fake_damage(*pair)
        rows.append((name, damage["damage_l2"].mean().item(), int(damage["success"].sum())))
    return rows


def _picture(image: Image.Image, longest: int = SHOWN) -> str:
    """Return a picture as a data URI, shrunk to so many pixels, losslessly."""
    image = image.copy()
    image.thumbnail((longest, longest), reducing_gap=3)
    buffer = BytesIO()
    image.save(buffer, "WEBP", lossless=True)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


# Two templates: what is shown, which a notebook shows too, and the page around it.
BODY = """<style>
/* named twice, it outweighs a notebook's own style */
.protected.protected {
  font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff;
  max-width: 62rem; margin: 1rem auto; padding: 0 1rem; overflow-wrap: break-word;
  & h1 { font-size: 1.5rem; font-weight: 600; margin: 1rem 0 }
  & h2 { font-size: 1.2rem; font-weight: 600; margin: 2.5rem 0 1rem }
  & p { max-width: 44rem; margin: 1rem 0 }
  & .row { display: grid; gap: .8rem }
  & .two { grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)) }
  & .four { grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)) }
  & .five { grid-template-columns: repeat(auto-fit, minmax(7rem, 1fr)) }
  & figure { margin: 0 }
  & img { width: 100%; max-width: none; display: block; background: #eee; margin: 0 0 2px }
  & figcaption { font-size: .85rem; margin: .2rem 0 .6rem } & .broken { color: #a00000 }
  & table { border-collapse: collapse; margin: .5rem 0; font-size: inherit; border: none }
  & td, & th { text-align: left; padding: .2rem 1.2rem .2rem 0; border-bottom: 1px solid #ddd;
               font-weight: normal }
  & th { color: #666 } & .n { text-align: right; font-variant-numeric: tabular-nums }
}
</style><div class="protected">
<h1>{{ done.target.name }}</h1>
<p><strong>{{ summary[0]|upper }}{{ summary[1:] }}.</strong> Aimed at
{{ protector.generator_name }} and at no other generator, at strength “{{ protector.strength }}”;
measured on the file that was written, read back from disk.</p>
<div class="row two">
{% for name, uri in [("The photo", whole[0]), ("The protected file", whole[1])] %}
<figure><img src="{{ uri }}" alt="{{ name }}"><figcaption>{{ name }}</figcaption></figure>
{% endfor %}</div>
<p>{{ "%.1f"|format(100 * done.identical) }} % of the photo's pixels kept their bits.
{% if done.lossless %}Every pixel outside the mask did.{% else %}In a JPEG compression touches
pixels outside the mask too; a PNG or WebP output keeps them bit by bit.{% endif %}
{% for note in done.notes %} Note: {{ note }}.{% endfor %}</p>
{% for s in sections %}
<h2>{% if s.face.face %}Face {{ loop.index }}{% else %}The centre square{% endif %}:
{{ s.words }}</h2>
<div class="row four">{% for name, uri in s.pictures.items() %}
<figure><img src="{{ uri }}" alt="{{ name }}"><figcaption>{{ name }}</figcaption></figure>
{% endfor %}</div>
<p>In this part of the photo a colour value changed by {{ "%.2f"|format(s.face.l1) }} of 255 on
average and by at most {{ s.face.linf }}.</p>
<p>Edits by the generator: of the photo, and below it of the protected file.</p>
<div class="row five">{% for name, clean, broken, damage in s.fakes %}
<figure><img src="{{ clean }}" alt="{{ name }}: edit of the photo">
<img src="{{ broken }}" alt="{{ name }}: the same edit of the protected file"><figcaption>
{{ name }}: damage {{ "%.3f"|format(damage) }},
{% if damage > success %}<span class="broken">broken</span>{% else %}not broken{% endif %}
</figcaption></figure>{% endfor %}</div>
<p>What is left when the file goes on its way:</p>
<table><tr><th>Done to the file</th>
<th class="n">Mean damage</th><th class="n">Edits broken</th></tr>
{% for name, damage, broken in s.undone %}
<tr><td>{{ name }}</td><td class="n">{{ "%.3f"|format(damage) }}</td>
<td class="n">{{ broken }} of {{ s.fakes|length }}</td></tr>{% endfor %}</table>
{% endfor %}
<h2>What this does not do</h2>
<p>It works against the generator that it was aimed at, {{ protector.generator_name }}, and its
edits of a face taken as a young brown-haired woman's; other generators, other edits and other
versions of the weights may not be disturbed at all. Whoever has this file can undo much of it: by
compressing, shrinking or blurring it (the table measures how much), by cutting the face out
differently, by denoising, by filming the screen, or by training the generator on protected photos.
A copy of the unprotected photo that is out already is not protected.</p>
<p>“Damage” is the mean squared change of a fake in [-1, 1]; a fake counts as visibly broken above
{{ success }} (Ruiz et al.). The words for visibility go by two measures and no viewer:
SSIM, and the largest smooth change of colour (tint), which SSIM overlooks. They say
{% for least, most, phrase in words %}{% if loop.last %}else “{{ phrase }}”{% else %}“{{ phrase }}”
for an SSIM from {{ least }} and a tint up to {{ most }}, {% endif %}{% endfor %}. SSIM is of the
face's part of the photo, shrunk to 1024 pixels where it is larger. Strength: at most
±{{ attack.bound }} in [-1, 1] before rounding, {{ attack.steps }} steps.</p>
</div>
"""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ done.target.name }}, protected</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body { background: #fff; margin: 0 }</style></head><body>
{{ body|safe }}</body></html>
"""
