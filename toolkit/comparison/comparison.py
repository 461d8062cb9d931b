"""The result of a comparison: one row a call, and what follows from them. Loaded lazily: pandas comes with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from .. import charts
from ..client import AsyncClient, Client
from ..errors import ConfigError
from ..files import written_whole
from ..monitor.journal import Journal
from ..render import DASH, escape, html_interval, html_page, html_table, seconds, text_table, usd
from ..types import CacheMode
from . import answers, capsule, plots, report, saved
from .diff import Diff
from .grid import Model
from .judge import METRIC, Judge, Judgement, ajudge_pairings, judge_pairings, judge_scores, read_judge, votes_of
from .judge_tables import judge_report, judge_sentences, judgement_frame
from .measured import Measured
from .pairings import Pairing, chosen_labels, pairings
from .pictures import Pictures
from .progress import Progress
from .ranking import Raters, ranking, win_shares
from .run import Run
from .votes import Ballot, BallotBox, vote_frame

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from ..widgets.ballot import BallotWidget

__all__ = ["Comparison"]

INTERVAL = "p95 interval (95 %)"
MOST_SENTENCES = 3
"""So many pairs of models are told of where a comparison shows itself."""


class Comparison(Measured):
    """Answers of several models to the same prompts.

    Attributes
    ----------
    frame : pandas.DataFrame
        Tidy, one row a call in the order of the table (prompt, repeat, model), however they were asked. The columns are those of
        ``toolkit.monitor.calls``, and ``reference``. ``label`` tells variants of one model apart.
    name, run_id : str
        What it is called, and its id in the journal.
    models : list of str
        The labels, in the order given.
    stopped : bool
        Whether cells are missing because it was interrupted or a rule stopped it.
    stopped_because : str or None
        The rule's reason.
    notes : tuple of str
        What else to know about how it went: that it was resumed, say, or that warm-up calls were left out.

    Examples
    --------
    >>> import toolkit as tk
    >>> result = tk.compare(["scripted/echo"], ["Hello"], name="greeting")
    >>> result
    <Comparison 'greeting': 1 model x 1 prompt, 1 ok, 0 failed>
    >>> result.side_by_side().iloc[0, 0]
    'Hello'
    """

    def __init__(
        self, run: Run, *, name: str | None = None, journal: Journal | None = None, client: Client | AsyncClient | None = None
    ) -> None:
        super().__init__(run, name=name)
        self._client = client
        self._box = BallotBox(journal)
        self._judgements: list[Judgement] = []
        self._arrivals = dict(run.arrivals)
        self._pictures = dict(run.pictures)
        self._streams: dict[int, saved.Stream] = {}

    # --- answers -----------------------------------------------------------------------------------------------------

    def side_by_side(self, only: Literal["different"] | None = None, *, search: str | None = None, repeat: int = 0) -> answers.SideBySide:
        """Return the answers, prompts down and models across.

        Parameters
        ----------
        only : "different", optional
            Leave out the prompts that all models answered alike, and mark the words that differ from the first model's.
        search : str, optional
            Only the rows in whose prompt, prompt_id or answers this text stands, in upper or lower case.
        repeat : int
            Which of the repeats.

        Returns
        -------
        pandas.DataFrame
            Indexed by ``prompt_id`` and ``prompt``; a failed call shows as ``[RateLimitError] ...``. A notebook shows 20 prompts a page,
            and below each answer its latency (or ``replayed``), tokens, cost (of a replay: what it saved) and scores.

        Raises
        ------
        ConfigError
            For a wrong argument.
        """
        return answers.side_by_side(self._plan, self._records, only, search, repeat, self._pictures, self._scores)

    def images(self, prompt_id: str, model: str, *, repeat: int = 0) -> Pictures:
        """Return the pictures that a model drew for a prompt.

        Parameters
        ----------
        prompt_id, model : str
            As in the frame: ``model`` is the label.
        repeat : int
            Which of the repeats.

        Returns
        -------
        tuple of Image
            Each with ``.data`` (bytes) and ``.mime``; empty where the call failed or was not made.

        Raises
        ------
        ConfigError
            If there is no such prompt, model or repeat.
        """
        index = answers.cell_index(self._plan, prompt_id, model, repeat)
        return Pictures(self._pictures.get(index, ()))

    def diff(self, prompt_id: str, a: str, b: str, *, repeat: int = 0) -> Diff:
        """Return what differs between two models' answers to a prompt, word by word.

        Parameters
        ----------
        prompt_id : str
            As in the frame.
        a, b : str
            Labels of two models.
        repeat : int
            Which of the repeats.

        Returns
        -------
        Diff
            Shows itself; ``.pieces`` are the runs of words, ``.html`` the marked text.

        Raises
        ------
        ConfigError
            If there is no such prompt, model or repeat.

        Examples
        --------
        >>> import toolkit as tk
        >>> from toolkit.testing import script
        >>> one, two = script("one", ["It is Lima."]), script("two", ["It is Cusco."])
        >>> tk.compare([one, two], ["Capital of Peru?"]).diff("001", one, two)
        --- scripted/one
        +++ scripted/two
        It is [-Lima-]{+Cusco+}.
        """
        return answers.diff(self._plan, self._records, prompt_id, a, b, repeat)

    # --- votes -------------------------------------------------------------------------------------------------------

    def ballot(self, *, rater: str, n: int | None = None, models: Sequence[str] | None = None, seed: int | None = None) -> Ballot:
        """Return a blind vote of one rater on these answers: what ``vote()`` draws, for a surface of your own.

        Parameters
        ----------
        rater : str
            Who votes; one who comes back goes on where they left off.
        n : int, optional
            Ask at most so many; by default about every two different answers to the same prompt.
        models : list of str, optional
            Labels to choose from; all by default.
        seed : int, optional
            Of the order and the sides.

        Returns
        -------
        Ballot
            ``.current`` is the prompt and the two answers, ``.cast(choice)`` votes (``a b tie both_bad skip``), ``.progress``.

        Raises
        ------
        ConfigError
            For a wrong argument, fewer than two models, or if no two answers differ.
        """
        labels = chosen_labels(self.models, models, "a vote")
        there = pairings(self._plan, self._records, labels, self._pictures)
        return Ballot(there, self._box, rater=rater, comparison=self.name, run_id=self.run_id, n=n, seed=seed)

    def vote(self, *, rater: str, n: int | None = None, models: Sequence[str] | None = None, seed: int | None = None) -> BallotWidget:
        """Return a widget to vote blind in a notebook: two answers, and who wrote them is not in the page.

        Keys: 1 (A is better), 2 (B is better), 3 (tie), 4 (both bad), s (skip), u (back). A vote is in the journal at once; a page
        that is loaded again, and a rater who comes back, go on where they left off. ``ranking()`` tells how it went.

        Parameters
        ----------
        rater, n, models, seed
            As for ``ballot``.

        Raises
        ------
        ConfigError
            As for ``ballot``, and if the extra ``notebook`` is not installed.

        Examples
        --------
        >>> import toolkit as tk
        >>> from toolkit.testing import script
        >>> models = [script("brief", lambda prompt, body: "Yes."), script("wordy", lambda prompt, body: f"Yes: {prompt}")]
        >>> result = tk.compare(models, ["Is it late?"])
        >>> result.vote(rater="ann")
        <blind vote of ann: 0 of 1 voted on>
        """
        try:
            from ..widgets.ballot import BallotWidget
        except ImportError as exc:
            raise ConfigError(
                f"voting in a notebook needs its extra ({exc.name} is missing): pip install 'model-comparison-toolkit[notebook]'"
            ) from exc
        return BallotWidget(self.ballot(rater=rater, n=n, models=models, seed=seed), ending="See how it went with .ranking().")

    def votes(self) -> pd.DataFrame:
        """Return the votes of people and judges on these answers, also those cast in other sessions and runs.

        Returns
        -------
        pandas.DataFrame
            A row a vote: ``at`` (UTC) ``rater kind`` (``person`` or ``judge``) ``prompt_id repeat model_a`` (shown first) ``model_b choice``
            (``a b tie both_bad skip``) ``winner`` (a label, missing where there is none) ``seconds vote_id run_id comparison answers``.
        """
        return vote_frame(self._box.votes_on(self._pairings))

    @property
    def _pairings(self) -> list[Pairing]:
        return list(pairings(self._plan, self._records, pictures=self._pictures))

    def ranking(self, votes: pd.DataFrame | None = None, *, raters: Raters | str | None = None, confidence: float = 0.95) -> pd.DataFrame:
        """Rank the models by votes: Bradley-Terry abilities with intervals.

        Parameters
        ----------
        votes : pandas.DataFrame, optional
            As from ``votes()``, perhaps of several comparisons together; by default those on this comparison's answers.
        raters : str, optional
            Only the votes of ``"people"``, of ``"judges"``, or of one rater by name.
        confidence : float
            Of the intervals.

        Returns
        -------
        pandas.DataFrame
            A row a model, best first: ``model``, ``ability`` (log-odds against the average of the ranked models; two models one apart
            win 73 : 27) with ``low high``, ``wins ties losses n`` and ``note``, which says why an ability can't be told: a model
            that never lost has no finite one. Both answers bad is a tie, half a win for each; skipped ones are left out.

        Raises
        ------
        ConfigError
            If there are no votes, fewer than two models, or a wrong argument.

        Notes
        -----
        Bradley and Terry, Biometrika 39 (1952). Where prompts have several votes, errors are clustered by prompt: the sandwich of
        Liang and Zeger, Biometrika 73 (1986), with Student's t for the number of prompts; never narrower than for independent votes.

        Examples
        --------
        >>> import toolkit as tk
        >>> from toolkit.testing import script
        >>> one, two = script("one", lambda prompt, body: "yes"), script("two", lambda prompt, body: "no")
        >>> result = tk.compare([one, two], ["a", "b", "c"])
        >>> ballot = result.ballot(rater="ann", seed=1)
        >>> for _ in range(3):
        ...     ballot.cast("a")
        >>> result.ranking()[["model", "wins", "losses"]].values.tolist()
        [['scripted/two', 2, 1], ['scripted/one', 1, 2]]
        """
        return ranking(self.votes() if votes is None else votes, self.models, raters=raters, confidence=confidence)

    # --- a model as judge --------------------------------------------------------------------------------------------

    def judge(
        self,
        judge: str | Model | Judge,
        *,
        client: Client | None = None,
        concurrency: int = 16,
        budget_usd: float | None = None,
        cache: CacheMode = True,
        progress: Progress = None,
    ) -> pd.DataFrame:
        """Have a model judge each two answers to the same prompt, in both orders.

        Its calls are cached, priced and journaled like any other (``operation`` is ``judge``) and stay out of this comparison's rows.
        Pictures, of a prompt or as answers, are shown to it, freed of their metadata: it has to be a model that reads pictures.
        Its verdicts are votes of the rater ``judge:<model>``, and the share each answer won becomes the column ``judge`` of ``frame``:
        ``verdict("judge")`` tests it.

        Parameters
        ----------
        judge : str, Model or Judge
            ``tk.Judge(model, instructions=...)`` says what matters here.
        client : Client, optional
            By default the one that made this comparison.
        concurrency, budget_usd, cache, progress
            As for ``compare``.

        Returns
        -------
        pandas.DataFrame
            This judge's rows of ``judgements()``. An answer that is no verdict is a row with ``judge_error``.

        Raises
        ------
        ConfigError
            For a wrong judge, fewer than two models, or without a client.
        """
        read = self._read_judge(judge)
        asker = self._client if client is None else client
        if not isinstance(asker, Client):
            raise ConfigError("give client=tk.Client() to judge with, or, after acompare, await comparison.ajudge(...)")
        pairs = self._pairings
        said = judge_pairings(
            asker, read, pairs, run_id=self.run_id, concurrency=concurrency, budget_usd=budget_usd, cache=cache, progress=progress
        )
        return self._take_judgements(read, said)

    async def ajudge(
        self,
        judge: str | Model | Judge,
        *,
        client: AsyncClient | None = None,
        concurrency: int = 16,
        budget_usd: float | None = None,
        cache: CacheMode = True,
        progress: Progress = None,
    ) -> pd.DataFrame:
        """The awaitable twin of ``judge``. The same parameters and result."""
        read = self._read_judge(judge)
        asker = self._client if client is None else client
        if not isinstance(asker, AsyncClient):
            raise ConfigError("give client=tk.AsyncClient() to judge with, or, after compare, call comparison.judge(...)")
        pairs = self._pairings
        said = await ajudge_pairings(
            asker, read, pairs, run_id=self.run_id, concurrency=concurrency, budget_usd=budget_usd, cache=cache, progress=progress
        )
        return self._take_judgements(read, said)

    def _read_judge(self, judge: object) -> Judge:
        scorers = [] if self._judgements else self._scorers
        return read_judge(judge, self.models, scorers=scorers, names=[variant.name for variant in self._plan.variants])

    def _take_judgements(self, judge: Judge, said: Sequence[Judgement]) -> pd.DataFrame:
        self._judgements = [one for one in self._judgements if one.rater != judge.rater] + list(said)
        self._box.put(list(votes_of(said, comparison=self.name, run_id=self.run_id)))
        self._score_judgements()
        return judgement_frame(said)

    def _score_judgements(self) -> None:
        """Put the judges' scores into their column."""
        scores = judge_scores(self._judgements)
        for index in self._records:
            cell = self._plan.cell(index)
            where = (cell.question.prompt_id, cell.repeat, cell.variant.label)
            self._scores[index] = {**self._scores.get(index, {}), METRIC: scores.get(where, float("nan"))}
        self._scorers = [*(name for name in self._scorers if name != METRIC), METRIC]
        self.__dict__.pop("frame", None)

    def judgements(self) -> pd.DataFrame:
        """Return what judges said.

        Returns
        -------
        pandas.DataFrame
            A row a judge, pair, prompt, repeat and order: ``rater model prompt_id repeat``, ``order`` (0: as the models stand in ``models``),
            ``model_a`` (shown first) ``model_b``, ``choice`` (``a b tie``, missing where ``judge_error`` says why), ``winner reason
            judge_error``, ``provenance latency_s cost_usd saved_usd`` of the judge's call (no provenance: the answers were the same, so
            nothing was asked and it is a tie; or a picture can't be shown blind, which ``judge_error`` says) and ``answers``.
        """
        return judgement_frame(self._judgements)

    def judge_report(self, *, confidence: float = 0.95) -> pd.DataFrame:
        """Say how far each judge can be trusted, and what it cost.

        Returns
        -------
        pandas.DataFrame
            Indexed by ``rater``: ``asked ties failed not_asked`` (answers that were the same, or can't be shown). Liking for a place: ``first_share`` of the
            decided verdicts that went to the answer shown first, with ``first_low first_high`` (Wilson), and ``first_p``: McNemar's
            mid-p that a model wins as often shown first as shown second (where prompts have several pairs, Student's on their means). ``pairs`` judged in both orders, ``agreement`` (the share
            with the same outcome) and ``kappa`` (Cohen's). ``judges_itself``; ``cost_usd`` (missing where unknown) and ``saved_usd``.
        """
        return judge_report(self._judgements, {variant.name for variant in self._plan.variants}, confidence)

    # --- plots -------------------------------------------------------------------------------------------------------

    def plot_latency(self) -> go.Figure:
        """Return a Plotly figure: the share of live calls answered within a time, a line a model in its 95 % confidence band.

        Repeats of a prompt resemble each other, so the band is as wide as for one call a prompt.

        Raises
        ------
        ConfigError
            If plotly is not installed.
        """
        return charts.latency_ecdf(self.frame, by="label", order=self.models, clusters="prompt_id")

    def plot_scores(self, metric: str | None = None, *, confidence: float = 0.95) -> go.Figure:
        """Return a Plotly figure: by how much each two models differ, with the interval; one that misses 0 is a difference.

        Parameters
        ----------
        metric : str, optional
            As for ``verdict``; by default the first score, or ``latency_s`` without scores.
        confidence : float
            Of the intervals.

        Raises
        ------
        ConfigError
            As ``verdict`` does, or if plotly is not installed.
        """
        return plots.score_differences(self.verdict(metric or self._first_score, alpha=1 - confidence), confidence=confidence)

    def plot_cost(self, quality: str | None = None) -> go.Figure:
        """Return a Plotly figure: what 1,000 calls cost against how good the answers are, a point a model.

        A line joins the models that no other beats on both (the Pareto front).

        Parameters
        ----------
        quality : str, optional
            A score, higher is better; by default the first.

        Raises
        ------
        ConfigError
            If there is no such score, or plotly is not installed.
        """
        metric = quality or (self._scorers[0] if self._scorers else None)
        if metric is None or metric not in self._scorers:
            known = ", ".join(self._scorers) or "none: give scorers= or judge="
            raise ConfigError(f"quality={metric!r}: it is one of this comparison's scores; there are {known}")
        return plots.cost_against_quality(self.frame, self.models, metric)

    def plot_timeline(self) -> go.Figure:
        """Return a Plotly figure: each call as a bar in time: waiting, up to the first token, and the answer.

        Raises
        ------
        ConfigError
            If plotly is not installed.
        """
        return charts.timeline(self.frame.assign(model=self.frame["label"]), order=self.models)

    def plot_wins(self, *, raters: Raters | str | None = None) -> go.Figure:
        """Return a Plotly figure: how often the model of a row won against that of a column; ties are half a win.

        Parameters
        ----------
        raters : str, optional
            As for ``ranking``.

        Raises
        ------
        ConfigError
            If plotly is not installed.
        """
        shares, met = win_shares(self.votes(), self.models, raters=raters)
        return plots.win_heatmap(self.models, shares.tolist(), met.tolist())

    @property
    def verdict_metrics(self) -> list[str]:
        """What a comparison says by itself whether its models differ on: latency, and each score."""
        return ["latency_s", *self._scorers]

    @property
    def _first_score(self) -> str:
        return self._scorers[0] if self._scorers else "latency_s"

    # --- files -------------------------------------------------------------------------------------------------------

    def save(self, path: str | PathLike[str]) -> None:
        """Write everything this comparison shows into one file, which ``tk.load_comparison(path)`` reads.

        Prompts, answers, scores, votes and verdicts of judges are in it; of the options, secrets are left out.

        Parameters
        ----------
        path : str or path
            Written whole or not at all; one that is there is replaced.

        Raises
        ------
        OSError
            If it can't be written.
        """
        saved.write(path, self._content())

    def to_capsule(self, path: str | PathLike[str]) -> None:
        """Write one file that others can play back with ``tk.replay(path)``, offline: requests, answers with their times, prices, versions.

        It holds what ``save`` writes, and when which piece of each answer came. Whatever has the shape of a secret is replaced by
        ``[redacted]``, in prompts and answers too; a secret that looks like a word is not found, so look before you publish.

        Parameters
        ----------
        path : str or path
            Written whole or not at all; one that is there is replaced.

        Raises
        ------
        OSError
            If it can't be written.
        """
        cache = self._client.cache if self._client is not None else None
        streams = {**capsule.streams_of(self._records, self._arrivals, cache), **self._streams}
        saved.write(path, capsule.scrubbed(self._content()), streams=streams)

    def to_html(self, path: str | PathLike[str]) -> None:
        """Write a page that any browser shows: summary, latencies, verdicts, errors, and all answers with a field to search them.

        It stands alone: it asks no other machine for anything, and no script but the search may run in it. Whatever has the shape of a
        secret is replaced by ``[redacted]``, as in a capsule; a secret that looks like a word is not found, so look before you publish.
        Of pictures, those of the first 20 prompts are in it.

        Parameters
        ----------
        path : str or path
            Written whole or not at all; one that is there is replaced.

        Raises
        ------
        OSError
            If it can't be written.

        Examples
        --------
        >>> import tempfile, toolkit as tk
        >>> result = tk.compare(["scripted/echo"], ["Hello"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result.to_html(f"{folder}/hello.html")
        """
        shown = Comparison._restore(capsule.scrubbed(self._content()), {}, None)
        shown.notes, shown.stopped_because = self.notes, self.stopped_because
        with written_whole(path) as file:
            file.write(report.page(shown).encode())

    def _content(self) -> saved.Content:
        return saved.Content(
            name=self.name,
            run_id=self.run_id,
            elapsed_s=self.elapsed_s,
            plan=self._plan,
            records=self._records,
            scorers=tuple(self._scorers),
            scores=self._scores,
            votes=tuple(self._box.votes_on(self._pairings)),
            judgements=tuple(self._judgements),
            pictures=self._pictures,
            until_metric=self.until_metric,
        )

    @classmethod
    def _restore(cls, content: saved.Content, streams: Mapping[int, saved.Stream], journal: Journal | None) -> Comparison:
        """Make a comparison of what a file holds."""
        run = Run(
            plan=content.plan,
            run_id=content.run_id,
            done=dict(content.records),
            pictures={index: tuple(images) for index, images in content.pictures.items()},
            until_metric=content.until_metric,
        )
        restored = cls(run, name=content.name)
        restored._scorers, restored.elapsed_s = list(content.scorers), content.elapsed_s
        restored._scores = {index: dict(scores) for index, scores in content.scores.items()}
        restored._box = BallotBox(journal, content.votes)
        restored._judgements = list(content.judgements)
        restored._streams = dict(streams)
        return restored

    # --- showing -----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._records)

    def __repr__(self) -> str:
        ok = sum(row.status == "ok" for row in self._records.values())
        lacking = f", {self.missing} not asked" if self.missing else ""
        models, prompts = len(self.models), len(self._plan.questions)
        size = f"{models} model{'s' * (models != 1)} x {prompts} prompt{'s' * (prompts != 1)}"
        repeats = f" x {self._plan.repeats} repeats" if self._plan.repeats > 1 else ""
        return f"<Comparison {self.name!r}: {size}{repeats}, {ok} ok, {len(self) - ok} failed{lacking}>"

    def cached_sentence(self) -> str:
        """Say what came from the cache and what that saved."""
        again = [row for row in self._records.values() if row.provenance in ("replayed", "coalesced") and row.status == "ok"]
        if not again:
            return "nothing came from the cache"
        saved_s, saved_usd = sum(row.saved_s or 0.0 for row in again), sum(row.saved_usd or 0.0 for row in again)
        money = f" and {usd(saved_usd)}" if saved_usd else ""
        return f"{len(again)} of {len(self)} answers were replayed from the cache, which saved {seconds(saved_s)}{money}"

    def _shown_rows(self, summary: pd.DataFrame) -> list[list[str]]:
        rows: dict[Any, dict[Any, Any]] = summary.to_dict("index")  # by label and column, each value of its own type
        return [
            [
                label,
                f"{row['ok']:,}",
                f"{row['errors']:,}",
                f"{row['replayed'] + row['coalesced']:,}",
                f"{row['n']:,}",
                seconds(row["p50_s"]),
                seconds(row["p95_s"]),
                shown_interval(row["p95_low_s"], row["p95_high_s"]),
                seconds(row["ttft_p50_s"]),
                usd(row["cost_usd"]),
            ]
            for label, row in rows.items()
        ]

    SHOWN = ("model", "ok", "failed", "cached", "live n", "p50", "p95", INTERVAL, "first token", "cost")

    def text(self) -> str:
        """Return the summary as a table for a terminal."""
        return "\n".join([text_table(self.SHOWN, self._shown_rows(self.summary())), *self.notes])

    def _repr_html_(self) -> str:
        why = f" because {self.stopped_because}" if self.stopped_because else ""
        stopped = f" It was stopped{why}: {self.missing} calls are missing; run it again to ask them." if self.missing else ""
        notes = "".join(f" {note.capitalize()}." for note in self.notes)
        title = f"<b>{escape(self.name)}</b> <span class='muted'>{escape(self.cached_sentence())}.{escape(stopped)}{escape(notes)}</span>"
        judges = "".join(f'<div class="muted">{escape(line)}</div>' for line in judge_sentences(self.judge_report()))
        verdicts = "".join(f"<div>{escape(line)}</div>" for line in self._sentences())
        return html_page(title, html_table(self.SHOWN, self._rows_with_bars()), verdicts, judges)

    def _rows_with_bars(self) -> list[list[str]]:
        """The shown rows, each p95 and its interval drawn beside the words: on one scale, so that models can be compared at a glance."""
        summary, place = self.summary(), self.SHOWN.index(INTERVAL)
        bounds = summary[["p95_low_s", "p95_s", "p95_high_s"]].to_numpy("float64")
        rows = self._shown_rows(summary)
        for row, (low, value, high) in zip(rows, bounds):
            row[place] = html_interval(low, value, high, max(bounds[bounds == bounds], default=0.0), row[place])
        return rows

    def _sentences(self) -> list[str]:
        """What differs, in words: on latency and on each score, what is decided first."""
        if len(self.models) < 2:
            return []
        return [line for metric in self.verdict_metrics for line in first_sentences(self.verdict(metric), metric)]


def first_sentences(table: pd.DataFrame, metric: str) -> list[str]:
    """What is decided about a metric, a line a pair, and where the rest is told."""
    known = table[table["n"] > 0]
    if len(known) < 2:
        return known["sentence"].tolist()
    lines = known[known["decided"]]["sentence"].tolist()[:MOST_SENTENCES]
    rest = len(known) - len(lines)
    if not lines:
        return [f"no difference in {metric} between any two models is decided yet: .verdict({metric!r}) tells what would settle it"]
    return [*lines, f"{rest} more pair{'s' * (rest != 1)}: .verdict({metric!r})"] if rest else lines


def shown_interval(low: float, high: float) -> str:
    if low != low and high != high:
        return DASH
    if high != high:
        return f"{seconds(low)} or more"
    return f"{seconds(low)} to {seconds(high)}"
