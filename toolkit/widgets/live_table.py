"""A table that changes while calls run, with a Stop button that the keyboard reaches and a voice for screen readers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import traitlets

from .view import MEND, View

__all__ = ["LiveTable"]

ESM = """
function render({ model, el }) {
  const make = (tag, attributes) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };
  const stop = make("button", { type: "button", class: "tk-stop", title: "Start no further call and keep what is finished" });
  const table = make("div", {});
  const voice = make("div", { role: "status", "aria-live": "polite", class: "tk-voice" });
  const draw = () => {
    table.innerHTML = model.get("table");  // escaped where it was made
    if (voice.textContent !== model.get("said")) voice.textContent = model.get("said");
    stop.disabled = model.get("stopped");
    stop.textContent = stop.disabled ? "Stopping" : "Stop";
  };
  stop.addEventListener("click", () => model.send({ type: "stop" }));
  model.on("change", draw);
  el.append(stop, table, voice);
  draw();
  return () => model.off("change", draw);
}
export default { initialize, render };
"""

CSS = """
.tk-stop { font: 13px/1.5 system-ui, sans-serif; padding: .2em 1em; border: 1px solid #8888; border-radius: 4px; background: transparent; color: inherit; cursor: pointer }
.tk-stop:disabled { opacity: .45; cursor: default }
.tk-stop:focus-visible { outline: 2px solid #0072B2; outline-offset: 1px }
.tk-voice { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap }
"""


class LiveTable(View):
    """Shows HTML that is given to it again and again.

    Parameters
    ----------
    table : str
        HTML, escaped already.
    on_stop : callable
        Is called when the button is pressed.
    name : str
        What its ``repr`` says.
    """

    _esm = MEND + ESM
    _css = CSS
    table = traitlets.Unicode().tag(sync=True)
    said = traitlets.Unicode().tag(sync=True)
    stopped = traitlets.Bool().tag(sync=True)

    def __init__(self, table: str, *, on_stop: Callable[[], None], name: str) -> None:
        super().__init__(table=table)
        self._name = name
        self._on_stop = on_stop
        self.on_msg(self._take)

    def _take(self, _widget: object, content: Any, _buffers: object) -> None:  # content: whatever the page sent
        if content.get("type") == "stop":
            self.stopped = True
            self._on_stop()

    def show(self, table: str, said: str, *, name: str) -> None:
        """Draw the table anew; ``said`` is read aloud where it differs from before."""
        self._name = name
        with self.hold_sync():
            self.table, self.said = table, said

    def left_behind(self) -> str:
        return self.table

    def __repr__(self) -> str:
        return self._name
