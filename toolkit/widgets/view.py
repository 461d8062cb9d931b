"""What all views have in common: a stable name, and plain HTML that they leave in their place."""

from __future__ import annotations

from typing import Any

import anywidget
from IPython import display

__all__ = ["MEND", "Mender", "View"]

MEND = """
// After a reload JupyterLab looks for a model during two seconds, and where the page was busy as they ended it does not look once more
// (get_model of @jupyter-widgets/base-manager 1.0): the output says "model not found" though the model is there. Set again, it is drawn.
const LOST = "Error displaying widget: model not found";
const VIEW = "application/vnd.jupyter.widget-view+json";
const mend = async (manager) => {
  if (![...document.querySelectorAll(".jp-OutputArea-output")].some((node) => node.textContent === LOST)) return;
  for (const { outputs } of manager.context?.model?.cells ?? []) {
    for (let place = 0; place < (outputs?.length ?? 0); place++) {
      const output = outputs.get(place).toJSON();
      const id = output.data?.[VIEW]?.model_id;
      if (!id || !manager.has_model(id)) continue;
      const { views } = await manager.get_model(id);
      if (!Object.keys(views ?? {}).length) outputs.set(place, output);
    }
  }
};
function initialize({ model }) {
  for (const wait of [200, 1000, 3000]) setTimeout(() => mend(model.widget_manager), wait);
}
"""
"""Goes before the script of every view: a front end other than JupyterLab has no such outputs, and nothing happens."""


class View(anywidget.AnyWidget):
    """A widget that a saved notebook outlives: ``leave`` puts HTML where it stood, for it would reopen as "model not found"."""

    def __init__(self, **traits: Any) -> None:  # each trait has its own type
        super().__init__(**traits)
        self._places: list[Any] = []  # IPython's display handles
        self._left = False

    def left_behind(self) -> str:
        """The HTML that stays."""
        raise TypeError(f"{type(self).__name__} does not say what it leaves behind")

    def leave(self) -> None:
        """Put plain HTML in the place of the live view.

        A page that was loaded again knows the place no more: it keeps the live view, as long as nobody closes it.
        """
        self._left = True
        for place in self._places:
            place.update(self._plain(), raw=True)

    def _plain(self) -> dict[str, str]:
        return {"text/html": self.left_behind(), "text/plain": repr(self)}

    def _ipython_display_(self, **_how: Any) -> None:  # IPython's protocol
        bundle = None if self._left else self._repr_mimebundle_()
        shown = bundle[0] if bundle else self._plain()
        self._places.append(display.display(shown, raw=True, display_id=True))  # type: ignore[no-untyped-call]

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"  # anywidget's holds an address in memory


class Mender(View):
    """Shows nothing; while it is open, widgets that are no views of ours come back after a reload too."""

    _esm = f"{MEND}export default {{ initialize, render() {{}} }};"
