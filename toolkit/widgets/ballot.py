"""The blind vote as a notebook shows it. Only what a rater may see goes to the page: the two answers, never who wrote them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import traitlets

from ..render import escape, html_page, picture_address
from .view import MEND, View

__all__ = ["Ballot", "BallotWidget", "Paper"]


class Picture(Protocol):
    @property
    def data(self) -> bytes: ...
    @property
    def mime(self) -> str: ...


class Paper(Protocol):
    """A prompt, two answers, and the number of the vote, from 1."""

    @property
    def prompt(self) -> str: ...
    @property
    def left(self) -> str: ...
    @property
    def right(self) -> str: ...
    @property
    def position(self) -> int: ...
    @property
    def left_images(self) -> Sequence[Picture]: ...
    @property
    def right_images(self) -> Sequence[Picture]: ...


class Progress(Protocol):
    @property
    def done(self) -> int: ...
    @property
    def total(self) -> int: ...


class Ballot(Protocol):
    """What is voted on, one paper after another; a vote is kept when ``cast`` returns."""

    rater: str

    @property
    def current(self) -> Paper | None: ...
    @property
    def progress(self) -> Progress: ...
    def cast(self, choice: str) -> None: ...
    def undo(self) -> None: ...


class Button(NamedTuple):
    choice: str
    label: str
    key: str


BUTTONS = (
    Button("a", "A is better", "1"),
    Button("b", "B is better", "2"),
    Button("tie", "Tie", "3"),
    Button("both_bad", "Both bad", "4"),
    Button("skip", "Skip", "s"),
    Button("undo", "Back", "u"),
)

ESM = """
function element(tag, attributes, text) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text) made.textContent = text;  // never as HTML: models wrote the answers
  return made;
}

function render({ model, el }) {
  // Jupyter's own shortcuts would take the digits and the s: this attribute keeps them off.
  const box = element("div", { class: "tk-vote", tabindex: "0", role: "group", "aria-label": "Blind vote", "data-lm-suppress-shortcuts": "true" });
  const said = element("div", { role: "status", "aria-live": "polite" });
  const prompt = element("div", { class: "prompt" });
  const answers = element("div", { class: "answers" });
  const sides = ["A", "B"].map((name) => {
    const side = element("section", { "aria-label": `Answer ${name}` });
    const text = element("div", { class: "text" });
    const pictures = element("div", { class: "pictures" });
    side.append(element("b", {}, name), pictures, text);
    answers.append(side);
    return { text, show: (addresses) => pictures.replaceChildren(...addresses.map((src) => element("img", { src, alt: `Picture of answer ${name}` }))) };
  });
  const row = element("div", { class: "choices" });
  const choose = (choice) => {
    model.send({ choice, position: model.get("position") });  // a key pressed twice must not vote on what comes next
  };
  const buttons = model.get("buttons").map(({ choice, label, key }) => {
    const button = element("button", { type: "button", "data-choice": choice, "aria-keyshortcuts": key }, `${label} (${key})`);
    button.addEventListener("click", () => { choose(choice); box.focus(); });
    row.append(button);
    return button;
  });
  box.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const found = model.get("buttons").find(({ key }) => key === event.key.toLowerCase());
    if (!found) return;
    event.preventDefault();
    event.stopPropagation();
    choose(found.choice);
  });
  const draw = () => {
    said.textContent = model.get("said");
    prompt.textContent = model.get("prompt");
    sides[0].text.textContent = model.get("left");
    sides[1].text.textContent = model.get("right");
    sides[0].show(model.get("left_pictures"));
    sides[1].show(model.get("right_pictures"));
    prompt.hidden = answers.hidden = row.hidden = model.get("over");
    for (const button of buttons) button.disabled = button.dataset.choice === "undo" && model.get("position") <= 1;
  };
  model.on("change", draw);  // once for all fields that came together
  box.append(said, prompt, answers, row);
  el.append(box);
  draw();
  return () => model.off("change", draw);
}
export default { initialize, render };
"""

CSS = """
.tk-vote { color-scheme: light dark; font: 13px/1.5 system-ui, sans-serif; padding: .4em; max-width: 100% }
.tk-vote .prompt { white-space: pre-wrap; overflow-wrap: anywhere; margin: .6em 0; font-weight: 600 }
.tk-vote [hidden] { display: none !important }
.tk-vote .answers { display: grid; grid-template-columns: 1fr 1fr; gap: 1em }
.tk-vote .text { white-space: pre-wrap; overflow-wrap: anywhere; border-left: 3px solid #8888; padding-left: .8em; max-height: 24em; overflow-y: auto }
.tk-vote .pictures img { max-width: 100%; max-height: 24em; margin: .4em .4em 0 0 }
.tk-vote .choices { margin-top: .8em; display: flex; gap: .5em; flex-wrap: wrap }
.tk-vote button { font: inherit; padding: .3em .8em; border: 1px solid #8888; border-radius: 4px; background: transparent; color: inherit; cursor: pointer }
.tk-vote button:disabled { opacity: .45; cursor: default }
.tk-vote:focus-visible, .tk-vote button:focus-visible { outline: 2px solid #0072B2; outline-offset: 1px }
"""


class BallotWidget(View):
    """Buttons and keys for a ballot: 1 (left), 2 (right), 3 (tie), 4 (both bad), s (skip), u (back).

    Parameters
    ----------
    ballot : Ballot
        What is voted on. A page that is loaded again shows the paper that is next.
    ending : str
        What is said after the last vote.
    """

    _esm = MEND + ESM
    _css = CSS
    buttons: Any = traitlets.List().tag(sync=True)
    said = traitlets.Unicode().tag(sync=True)
    prompt = traitlets.Unicode().tag(sync=True)
    left = traitlets.Unicode().tag(sync=True)
    right = traitlets.Unicode().tag(sync=True)
    left_pictures: Any = traitlets.List().tag(sync=True)
    right_pictures: Any = traitlets.List().tag(sync=True)
    position = traitlets.Int().tag(sync=True)
    over = traitlets.Bool().tag(sync=True)

    def __init__(self, ballot: Ballot, *, ending: str) -> None:
        super().__init__(buttons=[button._asdict() for button in BUTTONS])
        self._ballot = ballot
        self._ending = ending
        self._lock = threading.Lock()
        self.on_msg(self._take)
        self._lay_out()

    def _take(self, _widget: object, content: Any, _buffers: object) -> None:  # content: whatever the page sent
        choice, position = content.get("choice"), content.get("position")
        with self._lock:
            if position != self.position or self.over:
                return
            if choice == "undo":
                if self._ballot.progress.done:
                    self._ballot.undo()
            elif choice in {button.choice for button in BUTTONS}:
                self._ballot.cast(choice)
            self._lay_out()

    def _lay_out(self) -> None:
        paper, progress = self._ballot.current, self._ballot.progress
        if paper is None:
            with self.hold_sync():
                self.said = f"Done: {progress.done} of {progress.total} voted on, as {self._ballot.rater}. {self._ending}"
                self.prompt = self.left = self.right = ""
                self.left_pictures = self.right_pictures = []
                self.position, self.over = progress.total + 1, True
            self.leave()
            return
        with self.hold_sync():
            self.over = False
            self.prompt, self.left, self.right, self.position = paper.prompt, paper.left, paper.right, paper.position
            self.left_pictures, self.right_pictures = addresses(paper.left_images), addresses(paper.right_images)
            self.said = f"{progress.done} of {progress.total} voted on, as {self._ballot.rater}"

    def left_behind(self) -> str:
        return html_page(f'<div role="status">{escape(self.said)}</div>')

    def __repr__(self) -> str:
        return f"<blind vote of {self._ballot.rater}: {self._ballot.progress.done} of {self._ballot.progress.total} voted on>"


def addresses(pictures: Sequence[Picture]) -> list[str]:
    return [picture_address(picture.mime, picture.data) for picture in pictures]
