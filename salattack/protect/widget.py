"""A photo and a strength: what protecting it changes and breaks, in a notebook or in Voilà.

It shows only what `protect_photo` wrote, and the report of that file.
"""

import base64
import os
from dataclasses import replace
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import ipywidgets
from IPython.display import DisplayHandle, display

from ..errors import SalattackError
from ..faces import load_faces
from .disruption import STRENGTHS, attack_of, load_protector
from .page import body
from .photo_file import FORMATS, READ, name_written
from .protection import protect_photo

STYLE = """<style>
.stale { opacity: .3 } a.save { text-decoration: underline; color: #0645ad }
.voila-skeleton-container { display: none } /* this page shows its own progress */
</style>"""


class ProtectPage:
    """Controls, and a result that is computed again when one of them changes."""

    def __init__(
        self, photo: str | Path | None = None, strength: str = "normal", *, device: str = "auto"
    ) -> None:
        """Load the models, see `load_protector`; compute nothing yet.

        The ``photo`` is shown first; None stands for the first shipped face.
        """
        self._shown: DisplayHandle | None = None
        self._protector = load_protector(strength, device=device)
        self._folder = TemporaryDirectory(prefix="salattack-")  # for uploads and results
        self._target = Path(self._folder.name, "protected")
        shipped = load_faces("openpeople", kind=["selfie", "portrait"])
        choices = list(zip(shipped.ids, map(Path, shipped.sources), strict=True))
        if photo is not None:
            choices.insert(0, (Path(photo).name, Path(photo)))
        wide = {"width": "20rem", "max_width": "100%"}
        self.photo = ipywidgets.Dropdown(options=choices, description="Photo", layout=wide)
        self.upload = ipywidgets.FileUpload(accept=",".join(READ), description="Your photo")
        slider = {"options": list(STRENGTHS), "value": strength, "continuous_update": False}
        self.strength = ipywidgets.SelectionSlider(description="Strength", layout=wide, **slider)
        square = {"description": "Centre square instead of faces (--whole-frame)", "indent": False}
        self.whole_frame = ipywidgets.Checkbox(layout={**wide, "width": "auto"}, **square)
        self.progress = ipywidgets.IntProgress(layout=wide)
        self.said, self.link, self.result = (ipywidgets.HTML() for _ in range(3))
        self.upload.observe(self._uploaded, "value")
        for control in (self.photo, self.strength, self.whole_frame):
            control.observe(self._changed, "value")
        controls = (self.photo, self.upload, self.strength, self.whole_frame)
        flow = {"flex_flow": "row wrap", "align_items": "center"}
        self._controls = ipywidgets.Box(controls, layout=flow)
        rows = self._controls, self.progress, self.said, self.link, self.result
        self._page = ipywidgets.VBox((ipywidgets.HTML(STYLE), *rows))

    def show(self) -> None:
        """Show the page; `run` fills it."""
        self._shown = display(self, display_id=True)

    def run(self) -> None:
        """Protect the chosen photo at the chosen strength by `protect_photo`; show the result."""
        source, strength = self.photo.value, self.strength.value
        name = name_written(Path(self.photo.label).stem + source.suffix)
        target = self._target / name
        protector = replace(self._protector, strength=strength, attack=attack_of(strength))
        for control in self._controls.children:
            control.disabled = True
        self.link.value = ""
        self.result.add_class("stale")
        try:
            self._say(f"{name}: looking for faces …")
            done = protect_photo(
                source,
                target,
                protector,
                whole_frame=self.whole_frame.value,
                overwrite=True,
                on_step=lambda *step: self._step(protector.attack.gradients, *step),
            )
            self._say(f"{name}: measuring the written file …")
            self.result.value, self.link.value = body(done, protector), _link(target)
        except BaseException:
            self.result.value = ""  # never show a result next to settings that did not produce it
            raise
        finally:
            self._say("")
            self.progress.layout.visibility = "hidden"
            self.result.remove_class("stale")
            for control in self._controls.children:
                control.disabled = False
        if self._shown is not None:  # once, so that the notebook file keeps the first result
            self._shown.update(self)
            self._shown = None

    def _step(self, steps: int, face: int, faces: int, step: int) -> None:
        self.progress.max, self.progress.value = faces * steps, (face - 1) * steps + step
        self.progress.layout.visibility = "visible"
        self._say(f"face {face} of {faces}, step {step} of {steps}")

    def _say(self, sentence: str, colour: str = "#666") -> None:
        self.said.value = f'<span style="color: {colour}">{escape(sentence)}</span>'

    def _uploaded(self, change: dict[str, Any]) -> None:
        """Put an upload in front of the choices, which chooses it."""
        for file in change["new"]:
            path = Path(mkdtemp(dir=self._folder.name), Path(file["name"]).name)
            path.write_bytes(file["content"])
            self.upload.value = ()  # frees the memory, and allows the same file again
            self.photo.options = [(path.name, path), *self.photo.options]

    def _changed(self, _: object) -> None:
        try:
            self.run()
        except Exception as error:
            sentence = str(error)
            for folder in (self.photo.value.parent, self._target):  # the user did not choose these
                sentence = sentence.replace(f"{folder}{os.sep}", "")
            known = isinstance(error, SalattackError)
            self._say(sentence if known else f"{type(error).__name__}: {sentence}", "#a00000")
            if not known:
                raise

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        """Return the widget, and the result as HTML for readers without a kernel."""
        return {**self._page._repr_mimebundle_(), "text/html": self.result.value}


def _link(target: Path) -> str:
    kind = FORMATS[target.suffix.lower()].lower()
    data = base64.b64encode(target.read_bytes()).decode()
    name = escape(f"{target.stem}-protected{target.suffix}", quote=True)
    uri = f"data:image/{kind};base64,{data}"
    return f'<a class="save" download="{name}" href="{uri}">Save the protected file</a>'
