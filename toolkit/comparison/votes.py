"""Votes: which of two answers a person preferred, asked blind. The model behind the voting widget; nothing is drawn here."""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ConfigError, JournalError
from ..keys import canonical, digest
from ..monitor import frames
from ..monitor.events import VoteRecord
from ..monitor.journal import Journal
from ..types import Image
from .bare import bare
from .pairings import Pairing

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CHOICES", "JUDGE", "Ballot", "BallotBox", "Paper", "Progress", "vote_frame"]

CHOICES = ("a", "b", "tie", "both_bad", "skip")
"""What can be said of two answers: ``a`` is the left one."""

JUDGE = "judge:"
"""How the rater of a vote begins that a model gave."""

_log = logging.getLogger(__name__)


class Paper(NamedTuple):
    """What a rater sees: a prompt and two answers, and nothing that tells who wrote them."""

    prompt: str
    left: str
    right: str
    position: int  # from 1
    total: int
    left_images: tuple[Image, ...] = ()  # without what is written beside them
    right_images: tuple[Image, ...] = ()


class Progress(NamedTuple):
    """How far a ballot is; skipped ones count as done."""

    done: int
    total: int


class BallotBox:
    """The votes on a comparison's answers: those that the journal has and those cast here.

    Parameters
    ----------
    journal : Journal, optional
        Where votes are kept. Without one, or while it can't be written, they stay in memory, and a warning says so once.
    votes : iterable of VoteRecord
        Votes that came along with the comparison, from a file.
    """

    def __init__(self, journal: Journal | None, votes: Iterable[VoteRecord] = ()) -> None:
        self._journal = journal
        self._cast = list(votes)
        self._warned = False

    def put(self, votes: Sequence[VoteRecord]) -> bool:
        """Keep votes, on disk before this returns; return whether they are there."""
        self._cast += votes
        if not votes:
            return True
        if self._journal is None:
            self._warn_once()
            return False
        for vote in votes:
            self._journal.append(vote)
        return self._journal.flush()  # a journal in trouble keeps its rows and says so itself

    def votes_on(self, pairings: Iterable[Pairing]) -> list[VoteRecord]:
        """Return the votes on these answers, from whichever run; of a rater's votes on the same two answers the last one counts."""
        wanted = {(pairing.answers, pairing.models) for pairing in pairings}
        found: dict[tuple[Any, ...], VoteRecord] = {}
        for vote in sorted((*self._journaled(), *self._cast), key=lambda vote: vote.at):
            if (vote.answers, frozenset((vote.model_a, vote.model_b))) in wanted:
                where = subject(vote)
                found.pop(where, None)  # the later one stands where it was cast
                found[where] = vote
        return list(found.values())

    def _journaled(self) -> list[VoteRecord]:
        if self._journal is None:
            return []
        self._journal.flush()
        try:
            columns = self._journal.reader().votes()
        except JournalError as exc:
            _log.warning("the votes in the journal can't be read, only those cast here count: %s", exc)
            return []
        return [VoteRecord(*row) for row in zip(*(columns[name] for name in VoteRecord._fields))]

    def _warn_once(self) -> None:
        if not self._warned:
            _log.warning(
                "there is no journal: votes stay in memory; comparison.save(path) keeps them, or compare with a client that has one"
            )
        self._warned = True


def subject(vote: VoteRecord) -> tuple[Any, ...]:
    """What a vote is about. A judge is asked in both orders, a person once."""
    order = (vote.model_a, vote.model_b)
    return (vote.rater, vote.answers, order if vote.rater.startswith(JUDGE) else tuple(sorted(order)))


class Ballot:
    """A blind vote of one rater: pairs of different answers to the same prompt, one after another.

    Each two models meet equally often (where they have as many different answers), each as often on the left as on the right; the
    order is random by ``seed``. Answers that the rater has voted on before, in this or an earlier session, are not asked again.

    Parameters
    ----------
    pairings : iterable of Pairing
        All that could be asked.
    box : BallotBox
        Where votes go.
    rater : str
        Who votes; not a name that begins with ``judge:``.
    comparison, run_id : str
        What a vote says it belongs to.
    n : int, optional
        Ask at most so many; all by default.
    seed : int, optional
        By default made of the rater and the answers, so that a rater who comes back finds the same ballot.

    Raises
    ------
    ConfigError
        For a wrong argument, or if there are no two different answers.

    Examples
    --------
    >>> import toolkit as tk
    >>> from toolkit.testing import script
    >>> result = tk.compare(["scripted/echo", script("lima", ["Lima."])], ["Capital of Peru?"])
    >>> ballot = result.ballot(rater="ann")
    >>> ballot.current.prompt, ballot.progress
    ('Capital of Peru?', Progress(done=0, total=1))
    >>> ballot.cast("tie")
    >>> ballot.current is None, ballot.progress
    (True, Progress(done=1, total=1))
    """

    def __init__(
        self,
        pairings: Iterable[Pairing],
        box: BallotBox,
        *,
        rater: str,
        comparison: str,
        run_id: str,
        n: int | None = None,
        seed: int | None = None,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        if not isinstance(rater, str) or not rater.strip() or rater.startswith(JUDGE):
            raise ConfigError(f"rater={rater!r}: say who votes, for example rater='ann'; names that begin with 'judge:' are for models")
        if n is not None and (not isinstance(n, int) or n < 1):
            raise ConfigError(f"n={n!r}: ask for at least one vote, or leave it out to be asked about every pair")
        # Repeats may bring the same two answers again: those are asked once.
        different = list({(pairing.answers, pairing.models): pairing for pairing in pairings if not pairing.alike}.values())
        if not different:
            raise ConfigError("there is nothing to vote on: no two models gave different answers to the same prompt")
        self.rater = rater
        self._box, self._comparison, self._run_id, self._clock, self._timer = box, comparison, run_id, clock, timer
        self._queue = drawn(different, n, random.Random(made_seed(rater, different) if seed is None else seed))
        voted = {(vote.answers, frozenset((vote.model_a, vote.model_b))) for vote in box.votes_on(different) if vote.rater == rater}
        # What was voted on before comes first, so that the position of the next one tells how far the whole ballot is.
        self._queue.sort(key=lambda pairing: (pairing.answers, pairing.models) not in voted)
        self._next = sum((pairing.answers, pairing.models) in voted for pairing in self._queue)
        self._shown_at: float | None = None

    @property
    def current(self) -> Paper | None:
        """What to show now; ``None`` when all is voted on."""
        if self._next >= len(self._queue):
            return None
        if self._shown_at is None:
            self._shown_at = self._timer()
        pairing = self._queue[self._next]
        left, left_images = shown_blind(pairing.text_a, pairing.images_a)
        right, right_images = shown_blind(pairing.text_b, pairing.images_b)
        return Paper(pairing.prompt, left, right, self._next + 1, len(self._queue), left_images, right_images)

    @property
    def progress(self) -> Progress:
        """How many are done, of how many."""
        return Progress(self._next, len(self._queue))

    def cast(self, choice: str) -> None:
        """Vote on what is shown: ``a`` (left), ``b`` (right), ``tie``, ``both_bad`` or ``skip``. It is in the journal when this returns.

        Raises
        ------
        ConfigError
            For another choice, or when all is voted on.
        """
        if choice not in CHOICES:
            raise ConfigError(f"choice={choice!r}: it is one of {', '.join(CHOICES)}")
        if self._next >= len(self._queue):
            raise ConfigError("the ballot is over: all pairs are voted on")
        pairing, now = self._queue[self._next], self._timer()
        vote = VoteRecord(
            at=self._clock(),
            vote_id=uuid.uuid4().hex,
            run_id=self._run_id,
            comparison=self._comparison,
            prompt_id=pairing.prompt_id,
            repeat=pairing.repeat,
            model_a=pairing.model_a,
            model_b=pairing.model_b,
            choice=choice,
            rater=self.rater,
            answers=pairing.answers,
            seconds=None if self._shown_at is None else now - self._shown_at,
        )
        self._next += 1
        self._shown_at = None
        self._box.put([vote])

    def undo(self) -> None:
        """Go back to the pair before; the vote cast then counts in place of the earlier one, which stays in the journal.

        Raises
        ------
        ConfigError
            If there is none before.
        """
        if self._next == 0:
            raise ConfigError("there is no vote to take back")
        self._next -= 1
        self._shown_at = None

    def __repr__(self) -> str:
        return f"<Ballot of {self.rater}: {self.progress.done} of {self.progress.total} voted on>"


def shown_blind(text: str, images: Sequence[Image]) -> tuple[str, tuple[Image, ...]]:
    """What of an answer tells nothing of its model: pictures without their notes; one that can't be freed of them is only named."""
    freed = [(image, bare(image)) for image in images]
    named = [f"[a picture of type {image.mime}, which can't be shown blind]" for image, found in freed if found is None]
    return "\n".join(filter(None, [text, *named])), tuple(found for _, found in freed if found is not None)


def made_seed(rater: str, pairings: Sequence[Pairing]) -> int:
    return int(digest(canonical([rater, sorted(pairing.answers for pairing in pairings)]))[:16], 16)


def drawn(pairings: Sequence[Pairing], n: int | None, chance: random.Random) -> list[Pairing]:
    """Choose ``n`` pairings that are fair to all models, in random order: the sides alternate for each two models."""
    by_models: dict[frozenset[str], list[Pairing]] = {}
    for pairing in pairings:
        by_models.setdefault(pairing.models, []).append(pairing)
    rows = [sided(row, chance) for row in by_models.values()]
    chosen: list[Pairing] = []
    for turn in zip_longest(*rows):  # each two models once a turn
        present = [pairing for pairing in turn if pairing is not None]
        chance.shuffle(present)
        chosen += present
    chosen = chosen[:n]
    chance.shuffle(chosen)
    return chosen


def sided(row: Sequence[Pairing], chance: random.Random) -> list[Pairing]:
    """The prompts of two models shuffled, every other one turned round."""
    shuffled = chance.sample(row, len(row))
    turned = chance.randrange(2)
    return [pairing.turned() if i % 2 == turned else pairing for i, pairing in enumerate(shuffled)]


VOTE_KINDS: dict[str, type] = {
    "at": datetime, "rater": str, "kind": str, "prompt_id": str, "repeat": int, "model_a": str, "model_b": str, "choice": str,
    "winner": str, "seconds": float, "vote_id": str, "run_id": str, "comparison": str, "answers": str,
}  # fmt: skip


def vote_frame(votes: Sequence[VoteRecord]) -> pd.DataFrame:
    """See ``Comparison.votes``."""
    rows = [
        vote._asdict()
        | {
            "kind": "judge" if vote.rater.startswith(JUDGE) else "person",
            "winner": {"a": vote.model_a, "b": vote.model_b}.get(vote.choice),
        }
        for vote in votes
    ]
    return frames.to_pandas(frames.TidyTable({name: [row[name] for row in rows] for name in VOTE_KINDS}, VOTE_KINDS))
