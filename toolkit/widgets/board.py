"""The playground's board: models to choose, a prompt to type, two sliders, four buttons, and a pane an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets
from IPython import display

from ..render import escape, html_page
from .view import Mender

__all__ = ["Board"]

TEMPERATURE = 0.7
MAX_TOKENS = 256
LONGEST = 4096


class Board:
    """Shows what it is given and tells what is pressed; it knows nothing of models.

    Parameters
    ----------
    labels : list of str
        What can be chosen; all are at first.
    prompt : str
        What stands in the text field at first.
    on_ask, on_stop, on_keep, on_close : callable
        Are called when a button is pressed, and when the board is closed.
    """

    def __init__(
        self,
        labels: Sequence[str],
        *,
        prompt: str,
        on_ask: Callable[[], None],
        on_stop: Callable[[], None],
        on_keep: Callable[[], None],
        on_close: Callable[[], None],
    ) -> None:
        whole = {"description_width": "initial"}
        self.models = [ipywidgets.Checkbox(value=True, description=label, description_allow_html=False, indent=False) for label in labels]
        self.prompt = ipywidgets.Textarea(value=prompt, placeholder="Type a prompt", rows=4, layout=ipywidgets.Layout(width="auto"))
        self.temperature = ipywidgets.FloatSlider(value=TEMPERATURE, min=0.0, max=2.0, step=0.1, description="temperature", style=whole)
        self.max_tokens = ipywidgets.IntSlider(
            value=MAX_TOKENS, min=1, max=LONGEST, description="tokens at most", tooltip="The length of an answer", style=whole
        )
        self.ask = button("Ask", "Ask the chosen models", on_ask)
        self.stop = button("Stop", "Stop the answers; what has come stays", on_stop)
        self.keep = button("Keep", "Keep these answers for a comparison", on_keep)
        self.close_button = button("Close", "Stop, and leave what was kept in the notebook", self.close)
        self.note = ipywidgets.HTML()
        self.panes = ipywidgets.HBox(layout=ipywidgets.Layout(width="100%", align_items="flex-start"))
        self.kept = ipywidgets.HTML()
        self.widget = ipywidgets.VBox([
            ipywidgets.HBox(self.models, layout=ipywidgets.Layout(flex_flow="row wrap")),
            self.prompt,
            ipywidgets.HBox([self.temperature, self.max_tokens]),
            ipywidgets.HBox([self.ask, self.stop, self.keep, self.close_button]),
            self.note,
            self.panes,
            self.kept,
        ])  # fmt: skip
        self.mender = Mender()
        self.on_close = on_close
        self.places: list[Any] = []  # IPython's display handles
        self.copies: list[Any] = []
        self.copy_class = f"tk-kept-{self.kept.model_id}"
        self.closed = False

    @property
    def chosen(self) -> list[str]:
        """The labels that are ticked."""
        return [box.description for box in self.models if box.value]

    def running(self, yes: bool) -> None:
        self.ask.disabled, self.stop.disabled, self.keep.disabled = yes, not yes, yes

    def say(self, text: str) -> None:
        self.note.value = html_page(f'<div role="status">{escape(text)}</div>')

    def lay_out(self, pages: Sequence[str]) -> list[Any]:
        """Make a pane for each page of HTML, escaped already; setting ``.value`` of one draws it anew."""
        share = ipywidgets.Layout(width=f"{100 / max(1, len(pages)):.3f}%", min_width="0", padding="0 .5em 0 0")
        old = self.panes.children
        self.panes.children = [ipywidgets.HTML(value=page, layout=share) for page in pages]
        for pane in old:
            pane.close()
        return list(self.panes.children)

    def show(self, kept: str, *, name: str) -> None:
        """Display the board as the cell's output, and below it the copy of what was kept."""
        bundle = {"text/plain": "<playground, closed>"} if self.closed else self.widget._repr_mimebundle_()
        self.places.append(display.display(bundle, raw=True, display_id=True))  # type: ignore[no-untyped-call]
        self.copies.append(display.display(self._copy(kept, name), raw=True, display_id=True))  # type: ignore[no-untyped-call]

    def show_kept(self, kept: str, *, name: str) -> None:
        """Show HTML, escaped already, below the panes, and in a copy that a saved notebook has; the copy is hidden where the board is seen.

        Voila draws no output anew once its page is there, so the copy alone would not do; nor would the board, which a saved notebook
        can't show.
        """
        self.kept.value = f"<style>.{self.copy_class} {{ display: none }}</style>{html_page(kept)}"
        for copy in self.copies:
            copy.update(self._copy(kept, name), raw=True)

    def _copy(self, kept: str, name: str) -> dict[str, str]:
        return {"text/html": f'<div class="{self.copy_class}">{html_page(kept)}</div>', "text/plain": name}

    def close(self) -> None:
        """End it; in its place stays nothing that a saved notebook could not show."""
        if self.closed:
            return
        self.closed = True
        self.on_close()
        ending = html_page("<div class='muted'>This playground is closed.</div>")
        for place in self.places:
            place.update({"text/html": ending, "text/plain": ""}, raw=True)
        # A page that draws no output anew still has the board: it says the same, and what was kept.
        self.widget.children = [ipywidgets.HTML(value=ending), self.kept]
        self.mender.close()


def button(name: str, tooltip: str, pressed: Callable[[], None]) -> Any:  # ipywidgets has no types
    made = ipywidgets.Button(description=name, tooltip=tooltip)
    made.on_click(lambda _button: pressed())
    return made
