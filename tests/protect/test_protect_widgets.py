"""The page of notebooks/protect.ipynb, driven as a browser drives it."""

import json
import re
from base64 import b64decode
from datetime import UTC, datetime
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from salattack.errors import SalattackError
from salattack.faces import load_faces
from salattack.faces.reading import open_photo
from salattack.protect import disruption
from salattack.protect import page as protect_report
from salattack.protect import protection as protect
from salattack.protect.page import in_words
from salattack.protect.photo_file import read_photo

pytestmark = pytest.mark.slow

widgets = pytest.importorskip(
    "salattack.protect.widget", reason="pip install 'salattack[notebooks]'"
)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "me & you.png"
    face = open_photo(load_faces("openpeople").sources[0]).crop((250, 200, 1450, 1500))
    face.resize((240, 260)).save(path)
    return path


@pytest.fixture
def done(monkeypatch):
    """Shorten the attacks and the report, and keep what was computed."""
    monkeypatch.setattr(disruption, "STEPS", 2)
    for name in list(protect_report.TRANSFORMS):
        monkeypatch.delitem(protect_report.TRANSFORMS, name)
    computed = []

    def protect_photo(*arguments, **options):
        computed.append(protect.protect_photo(*arguments, **options))
        return computed[-1]

    monkeypatch.setattr(widgets, "protect_photo", protect_photo)
    return computed


@pytest.fixture
def page(small, done):
    return widgets.ProtectPage(small, "normal", device="cpu")


def upload(page, name, content):
    file = {"name": name, "type": "", "size": len(content), "content": memoryview(content)}
    page.upload.value = ({**file, "last_modified": datetime.now(UTC)},)


def test_what_is_shown_is_what_was_computed(page, small, done):
    page.run()
    (first,) = done
    assert page.photo.label == "me & you.png" and len(page.photo.options) == 1 + 20
    summary = in_words(first)
    assert summary[1:] in page.result.value and "“normal”" in page.result.value
    assert "me &amp; you.png" in page.result.value and "<b>" not in page.result.value
    assert page.result.value.count("data:image/jpeg;base64,") == 2 + 4 + 10
    name, data = re.search(
        r'download="(.*?)" href="data:image/png;base64,(.*?)"', page.link.value
    ).groups()
    assert name == "me &amp; you-protected.png"
    saved = Image.open(BytesIO(b64decode(data)))
    assert np.array_equal(saved, read_photo(first.target).pixels)
    assert not np.array_equal(saved, read_photo(small).pixels)
    assert (page.progress.value, page.progress.max) == (2, 2)
    assert page.said.value.endswith("></span>") and not page.strength.disabled


@pytest.mark.slow
def test_another_strength_or_region_is_computed_anew(page, done):
    page.run()
    before = page.result.value
    page.strength.value = "strong"
    assert len(done) == 2 and "“strong”" in page.result.value != before
    page.whole_frame.value = True
    assert len(done) == 3 and done[2].faces[0].place.face is None
    assert "The whole frame: " in page.result.value


@pytest.mark.slow
def test_an_upload_is_chosen_and_computed_once(page, small, done):
    upload(page, "../mine.png", small.read_bytes())
    assert page.photo.label == "mine.png" and len(done) == 1 and page.upload.value == ()
    assert ">mine.png</h1>" in page.result.value
    assert page.photo.value.read_bytes() == small.read_bytes() and page.photo.value != small
    upload(page, "mine.png", small.read_bytes())  # the same once more is no mistake
    assert len(done) == 2


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("text.jpg", b"no photo", "text.jpg is not a readable picture"),
        ("photo.heic", b"", "photo.heic is not a readable picture"),
        ("green.png", None, "no face found in green.png; --whole-frame protects"),
    ],
)
def test_a_bad_upload_is_said_in_one_sentence_and_leaves_no_result(page, name, content, sentence):
    if content is None:
        Image.new("RGB", (64, 64), "green").save(buffer := BytesIO(), "PNG")
        content = buffer.getvalue()
    upload(page, name, content)
    said = page.said.value
    assert sentence in said and "#a00000" in said and "/" not in said.replace("</span>", "")
    assert page.result.value == page.link.value == ""
    assert not page.photo.disabled and page.progress.layout.visibility == "hidden"
    page.photo.index = 1  # and the page goes on
    assert page.result.value and page.link.value and "#a00000" not in page.said.value


def test_a_fault_of_ours_is_said_and_not_swallowed(page, monkeypatch):
    page.run()

    def broken(*_, **__):
        raise RuntimeError("<out> of order")

    monkeypatch.setattr(widgets, "protect_photo", broken)
    with pytest.raises(RuntimeError, match="out> of order"):
        page.strength.value = "strong"
    assert "RuntimeError: &lt;out&gt; of order" in page.said.value and page.result.value == ""
    assert not page.strength.disabled


def test_a_reader_without_a_kernel_sees_the_result(page):
    page.run()
    bundle = page._repr_mimebundle_()
    assert bundle["text/html"] == page.result.value
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "salattack-" not in json.dumps(bundle)  # no temporary folder


def test_wrong_parameters_stop_the_notebook(tmp_path, done):
    with pytest.raises(SalattackError, match="unknown strength 'mild'; known: normal"):
        widgets.ProtectPage(strength="mild", device="cpu")
    page = widgets.ProtectPage(tmp_path / "gone.png", device="cpu")
    with pytest.raises(SalattackError, match=r"gone.png does not exist; check the path"):
        page.run()
