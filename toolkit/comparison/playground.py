"""The playground: type a prompt, watch models answer side by side, keep the good rounds as a comparison."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from ..client import AsyncClient, Options, build_question
from ..errors import ConfigError, ToolkitError
from ..hints import next_step
from ..monitor.outcomes import CallContext, Outcome
from ..providers.registry import split_model
from ..render import Shown, html_card, html_table, seconds, usd
from ..types import CacheMode, Completion
from .grid import Cell, Model, Plan, Question, Variant, read_models
from .run import Run

if TYPE_CHECKING:
    from ..widgets.board import Board
    from .comparison import Comparison

__all__ = ["KeptAnswer", "Playground"]

EVERY_S = 0.125
"""The panes are drawn again at most this often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAnswer(Shown):
    """An answer of the playground that was kept.

    Attributes
    ----------
    prompt : str
        The question.
    model : str
        The model's label.
    options : Options
        What it was asked with: the sliders' values and the model's own options.
    completion : Completion
        The answer.
    at : float
        When it was asked for, in seconds since 1970.
    """

    prompt: str
    model: str
    options: Options
    completion: Completion
    at: float


@dataclass(slots=True, kw_only=True)
class Pane:
    """One model's answer as it comes."""

    variant: Variant
    prompt: str
    text: str = ""
    at: float = 0.0
    first_s: float | None = None
    state: str = "waiting"
    completion: Completion | None = None
    widget: Any = None  # ipywidgets has no types
    shown: str = field(default="", repr=False)

    def html(self) -> str:
        facts: dict[str, object] = {"": self.state}
        if self.completion is None:
            facts["first token"] = seconds(self.first_s)
        else:
            timing = self.completion.timing
            speed = timing.output_tokens_per_s
            facts["first token"] = seconds(timing.ttft_s)
            facts["tokens/s"] = "–" if speed is None else f"{speed:,.1f}"
            facts["latency"] = seconds(timing.latency_s)
            facts["cost"] = usd(self.completion.cost_usd)
        return html_card(self.variant.label, self.text, facts)

    def draw(self) -> None:
        page = self.html()
        if page != self.shown:
            self.shown = self.widget.value = page


class LoopThread:
    """An event loop on a thread of its own: a busy cell can't stall the answers, and they can't stall the cell."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._run, name="toolkit-playground", daemon=True).start()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def start(self, work: Coroutine[Any, Any, None]) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def end(self, last: Coroutine[Any, Any, None]) -> None:
        """Do one last thing and stop; who calls does not wait."""
        self.start(last).add_done_callback(lambda _done: self._loop.stop())


class Playground:
    """Models side by side, in a notebook; ``tk.playground`` makes one.

    Raises
    ------
    ConfigError
        If the extra ``notebook`` is not installed, or for a model that does not exist.
    """

    def __init__(self, models: Sequence[str | Model], *, client: AsyncClient, prompt: str = "", cache: CacheMode = True) -> None:
        self._models = models
        self._client = client
        self._cache = cache
        labels = [variant.label for variant in read_models(models, Options())]
        self.board = make_board(
            labels, prompt=prompt, on_ask=self._press_ask, on_stop=self.stop, on_keep=self._press_keep, on_close=self._end
        )
        self._lock = threading.Lock()
        self._panes: list[Pane] = []
        self._kept: list[KeptAnswer] = []
        self._loop: LoopThread | None = None
        self._round: Future[None] | None = None
        self.board.running(False)

    # --- what a person presses, and what code may call ----------------------------------------------------------------

    def ask(self, prompt: str) -> None:
        """Ask the chosen models; comes back at once, the answers stream into the panes.

        Raises
        ------
        ConfigError
            If the prompt is empty, no model is chosen, answers are still coming, or the playground is closed.
        """
        if self.board.closed:
            raise ConfigError("this playground is closed; make another with tk.playground(models)")
        if self.running:
            raise ConfigError("answers are still coming; press Stop, or wait")
        if not prompt.strip():
            raise ConfigError("the prompt is empty; type some text")
        options = Options(temperature=self.board.temperature.value, max_tokens=self.board.max_tokens.value)
        chosen = [variant for variant in read_models(self._models, options) if variant.label in self.board.chosen]
        if not chosen:
            raise ConfigError("no model is chosen; tick at least one")
        self._panes = [Pane(variant=variant, prompt=prompt) for variant in chosen]
        for pane, widget in zip(self._panes, self.board.lay_out([pane.html() for pane in self._panes])):
            pane.widget = widget
        self.board.running(True)
        self.board.say(f"{len(chosen)} models are answering")
        self._loop = self._loop or LoopThread()
        self._round = self._loop.start(self._answer_all(self._panes))

    def stop(self) -> None:
        """Stop the answers under way; what has come stays in the panes."""
        if self._round is not None:
            self._round.cancel()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the answers; say whether they are complete. In a notebook nobody needs to."""
        if self._round is not None:
            done, _ = wait_for([self._round], timeout=timeout_s)
            return bool(done)
        return True

    @property
    def running(self) -> bool:
        return self._round is not None and not self._round.done()

    def keep(self) -> int:
        """Keep the complete answers shown now, and return how many that were."""
        with self._lock:
            fresh = [
                KeptAnswer(
                    prompt=pane.prompt, model=pane.variant.label, options=pane.variant.options, completion=pane.completion, at=pane.at
                )
                for pane in self._panes
                if pane.completion is not None
            ]
            ids = {answer.completion.call_id for answer in self._kept}
            fresh = [answer for answer in fresh if answer.completion.call_id not in ids]
            self._kept += fresh
        self.board.show_kept(self._kept_table(), name=repr(self))
        return len(fresh)

    def kept(self) -> list[KeptAnswer]:
        """Return the answers that were kept, oldest first."""
        return list(self._kept)

    def comparison(self, name: str = "playground") -> Comparison:
        """Return what was kept as a comparison: the very answers with their timings; nothing is asked again.

        A model that was asked with different settings is a column for each. Of two answers of one column to one prompt the last
        counts; a prompt that a model was not asked is missing there.

        Raises
        ------
        ConfigError
            If nothing was kept yet.
        """
        from .comparison import Comparison  # pandas comes with it

        if not self._kept:
            raise ConfigError("nothing is kept yet: ask something and press Keep")
        return Comparison(kept_run(self._kept), name=name)

    def close(self) -> None:
        """Stop the answers under way and take the board away; what was kept stays."""
        self.board.close()

    # --- behind the buttons -------------------------------------------------------------------------------------------

    def _press_ask(self) -> None:
        try:
            self.ask(self.board.prompt.value)
        except ToolkitError as error:
            self.board.say(f"{error}")

    def _press_keep(self) -> None:
        count = self.keep()
        self.board.say(f"{count} answers kept, {len(self._kept)} in all; .comparison() compares them" if count else "no new answer to keep")

    def _end(self) -> None:
        self.stop()
        if self._loop is not None:
            self._loop.end(self._client.aclose())
            self._loop = None

    # --- answering, on the loop's thread ------------------------------------------------------------------------------

    async def _answer_all(self, panes: list[Pane]) -> None:
        tasks = [asyncio.create_task(self._answer(pane)) for pane in panes]
        try:
            pending = set(tasks)
            while pending:
                _, pending = await asyncio.wait(pending, timeout=EVERY_S)
                self._draw(panes)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._draw(panes)
            if self._panes is panes:  # and not the next round already
                self.board.running(False)
                self.board.say(f"{sum(pane.completion is not None for pane in panes)} of {len(panes)} answers are complete")

    def _draw(self, panes: list[Pane]) -> None:
        for pane in panes:
            pane.draw()

    async def _answer(self, pane: Pane) -> None:
        options = {option.name: getattr(pane.variant.options, option.name) for option in fields(Options)}
        pane.at, began = time.time(), time.perf_counter()
        try:
            async for event in self._client.stream_text(pane.variant.name, pane.prompt, cache=self._cache, **options):
                if pane.first_s is None:
                    pane.first_s = time.perf_counter() - began
                if event.completion is not None:
                    pane.completion, pane.text, pane.state = event.completion, event.completion.text, event.completion.provenance
                elif event.kind == "text":
                    pane.text, pane.state = pane.text + event.text, "streaming"
                elif event.kind == "reasoning":
                    pane.state = "thinking"
        except asyncio.CancelledError:
            pane.state = "stopped"
            raise
        except ToolkitError as error:
            pane.state = "failed"
            pane.text += f"\n[{type(error).__name__}] {error}\n{next_step(type(error).__name__)}".strip()

    # --- showing ------------------------------------------------------------------------------------------------------

    def _ipython_display_(self, **_how: Any) -> None:  # IPython's protocol
        self.board.show(self._kept_table(), name=repr(self))

    def _kept_table(self) -> str:
        rows = [
            (answer.prompt, answer.model, answer.completion.text, seconds(answer.completion.timing.ttft_s), usd(answer.completion.cost_usd))
            for answer in self._kept
        ]
        return html_table(("prompt", "model", "answer", "first token", "cost"), rows, caption="Kept") if rows else ""

    def __repr__(self) -> str:
        return f"<Playground of {len(self.board.models)} models, {len(self._kept)} answers kept>"


def make_board(labels: Sequence[str], **how: Any) -> Board:
    try:
        from ..widgets.board import Board
    except ImportError as exc:
        raise ConfigError(
            f"the playground needs its extra ({exc.name} is missing): pip install 'model-comparison-toolkit[notebook]'"
        ) from exc
    return Board(labels, **how)


def kept_run(kept: Sequence[KeptAnswer]) -> Run:
    """The kept answers as a comparison's run, each in its cell."""
    prompts = list(dict.fromkeys(answer.prompt for answer in kept))
    columns: list[tuple[str, Options]] = []
    for answer in kept:
        if (answer.model, answer.options) not in columns:
            columns.append((answer.model, answer.options))
    names = {answer.model: answer.completion.model for answer in kept}
    plan = Plan(
        variants=tuple(Variant(column_label(columns, label, options), names[label], options) for label, options in columns),
        questions=tuple(Question(f"{i:03}", prompt) for i, prompt in enumerate(prompts, 1)),
        repeats=1,
        order_seed=0,
    )
    run = Run(plan=plan, run_id=uuid.uuid4().hex[:16])
    for answer in kept:
        index = prompts.index(answer.prompt) * len(columns) + columns.index((answer.model, answer.options))
        cell = plan.cell(index)
        run.note(cell)(outcome_of(answer, cell, run))
    return run


def column_label(columns: Sequence[tuple[str, Options]], label: str, options: Options) -> str:
    """A model's label; where it was asked with several settings, with those that a person can change."""
    alone = sum(other == label for other, _ in columns) == 1
    return label if alone else f"{label} (temperature={options.temperature:g}, max_tokens={options.max_tokens})"


def outcome_of(answer: KeptAnswer, cell: Cell, run: Run) -> Outcome:
    done = answer.completion
    return Outcome(
        at=answer.at,
        call_id=done.call_id,
        context=CallContext(provider=done.provider, model=done.model, **run.context(cell)),  # type: ignore[arg-type]  # each its own type
        request=build_question(split_model(done.model)[1], answer.prompt, answer.options).request,
        timing=done.timing,
        completion=done,
        attempts=done.attempts,
    )
