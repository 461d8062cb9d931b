"""A real n-gram language model: trained on the text of Python's own help topics in well under a second, kept by joblib.

How likely a token is after a context is estimated by interpolated Witten-Bell smoothing: with ``c(h)`` the number of times the
context ``h`` was seen, ``c(h w)`` how often ``w`` followed it, ``d(h)`` the number of different tokens that did, and ``h'`` the
context without its farthest token,

    p(w | h) = (c(h w) + d(h) p(w | h')) / (c(h) + d(h))

down to the plain frequencies of single tokens; an unseen context hands over to the next shorter one. Sources: I. Witten and
T. Bell, "The zero-frequency problem", IEEE Transactions on Information Theory 37(4), 1991, method C; S. Chen and J. Goodman,
"An empirical study of smoothing techniques for language modeling", Harvard TR-10-98, 1998, section 2.6 (the form used here).

The counts are never stored. Each place of the training text is an entry of one array, sorted by the tokens before it, so what
followed a context of any length is one slice, and a single small file serves the models of all orders.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import random
import re
import warnings
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from heapq import merge
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import NamedTuple

from ..files import written_whole
from ..types import TokenLogprob
from .inprocess import Piece

__all__ = ["END", "ORDERS", "Ended", "Index", "NgramModel", "help_text", "load_index", "paragraphs", "tokenise", "train"]

ORDERS = range(1, 6)
FORMAT = 1
"""Part of the file's name; raised when training or the shape of the file changes."""

END = ""
"""The token that ends a paragraph: an answer stops where it is drawn."""

BITS = 16
REACH = ORDERS[-1] - 1
"""How many tokens before a place the index knows; four of 16 bits fill a machine word."""

TOKEN = re.compile(r" ?\w+|\n+|[^\S\n]+|[^\w\s]")
WRAP = re.compile(r"(?<=\S)\n(?=\S)")
"""A line break inside prose: what follows is not indented."""

RULE = re.compile(r"[-=*]{3}|[ +]\|")
"""Belongs to a heading or a table, or the drawing of one."""


def tokenise(text: str) -> list[str]:
    """Cut a text into tokens: a word with the blank before it, a punctuation mark, a run of line breaks or of other white space.

    Joining the tokens gives the text back, whatever it holds.

    Examples
    --------
    >>> tokenise("Two  lists, joined.")
    ['Two', '  ', 'lists', ',', ' joined', '.']
    """
    return TOKEN.findall(text)


# --- training ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Index:
    """Every place of a training text, sorted by the tokens before it.

    Attributes
    ----------
    vocabulary : tuple of str
        All tokens, the most frequent first; ``END`` is the last.
    contexts : array of int
        For each place the numbers of the four tokens before it, the nearest in the highest 16 bits. Sorted.
    nexts : array of int
        The number of the token at the place.
    """

    vocabulary: tuple[str, ...]
    contexts: array[int]
    nexts: array[int]


def train(texts: Iterable[str]) -> Index:
    """Index texts, each of them one paragraph.

    Raises
    ------
    ValueError
        If there is no token in them, or more than 65,535 different ones.
    """
    sequences = [tokens for tokens in map(tokenise, texts) if tokens]
    counts = Counter(chain.from_iterable(sequences))
    if not 0 < len(counts) < 1 << BITS:
        raise ValueError(f"a text to learn from has between 1 and {(1 << BITS) - 1:,} different tokens; this one has {len(counts):,}")
    vocabulary = (*sorted(counts, key=lambda token: (-counts[token], token)), END)
    number = {token: n for n, token in enumerate(vocabulary)}
    places = sorted(chain.from_iterable(places_of([number[t] for t in tokens], number[END]) for tokens in sequences))
    mask = (1 << BITS) - 1
    return Index(vocabulary, array("Q", [place >> BITS for place in places]), array("H", [place & mask for place in places]))


def places_of(tokens: list[int], end: int) -> Iterator[int]:
    """The places of one paragraph: the context in the high bits, the token in the lowest 16. Nothing before it is its context."""
    context = 0
    for _ in range(REACH):
        context = context << BITS | end
    top = BITS * (REACH - 1)
    for token in (*tokens, end):
        yield context << BITS | token
        context = token << top | context >> BITS


def help_text() -> str:
    """Return the text of ``help()``'s topics, as this version of Python ships it."""
    from pydoc_data.topics import topics  # half a megabyte

    return "\n\n\n".join(topics[name] for name in sorted(topics))


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a text without headings and tables, its prose without the line breaks that only wrap it."""
    return [WRAP.sub(" ", paragraph) for paragraph in re.split(r"\n{2,}", text) if paragraph.strip() and not RULE.search(paragraph)]


# --- the file ------------------------------------------------------------------------------------------------------------


def load_index(directory: Path) -> Index:
    """Return the index of the help topics: from its file in a folder, or trained now and kept there.

    The file's name holds the longest order, the format and the hash of the text, so another Python version trains anew.
    joblib's files are pickles, and a pickle can run code: the folder is meant to be the user's own, and a file that belongs to
    somebody else, or that others may write to, is not opened. A damaged file never reaches the unpickler, for the hash in front
    of it does not fit; it is replaced.
    """
    text = help_text()
    sha = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    path = directory / f"ngram-{ORDERS[-1]}-v{FORMAT}-{sha[:16]}.joblib"
    index = read_index(path)
    if index is None:
        index = train(paragraphs(text))
        keep_index(index, path)
    return index


def read_index(path: Path) -> Index | None:
    """``None`` where there is no file that we wrote, whole."""
    try:
        with path.open("rb") as file:
            if not private(os.fstat(file.fileno())):
                return None
            written = file.read()
    except OSError:
        return None
    size = hashlib.sha256().digest_size
    payload = written[size:]
    if hashlib.sha256(payload).digest() != written[:size]:
        return None
    import joblib  # brings numpy along

    return Index(*joblib.load(io.BytesIO(payload)))


def private(status: os.stat_result) -> bool:
    """Whether a file is ours and nobody else may write to it; Windows keeps that in the folder's access list."""
    return not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o022)


def keep_index(index: Index, path: Path) -> None:
    """Write the file in one move. A folder that cannot be written costs a training each time, which is worth a warning only."""
    import joblib

    buffer = io.BytesIO()
    joblib.dump((index.vocabulary, index.contexts, index.nexts), buffer)
    payload = buffer.getvalue()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with written_whole(path) as file:
            file.write(hashlib.sha256(payload).digest() + payload)
    except OSError as error:
        warnings.warn(f"the n-gram model is not kept and will be trained again: {error}", RuntimeWarning, stacklevel=2)


# --- the model -----------------------------------------------------------------------------------------------------------

Slice = tuple[int, int]


class Mixture(NamedTuple):
    """A distribution over the vocabulary: ``p(w) = own.get(w, 0) + rest * unigram[w]``. ``END``, where it may come, is always in ``own``."""

    own: dict[int, float]
    rest: float


class Lots(NamedTuple):
    """How to draw a token: some by their own weights, all words by the weights of single tokens, scaled."""

    tokens: Sequence[int]
    bounds: Sequence[float]  # running sums of their weights
    scale: float = 0.0
    words: Sequence[float] = ()  # running sums of the weights of all words

    def draw(self, point: float) -> int:
        """Return the token at a point of [0, 1)."""
        own = self.bounds[-1] if self.bounds else 0.0
        reach = point * (own + self.scale * self.words[-1] if self.scale else own)
        if reach < own or not self.scale:
            return self.tokens[min(bisect_right(self.bounds, reach), len(self.tokens) - 1)]
        return min(bisect_right(self.words, (reach - own) / self.scale), len(self.words) - 1)


class Ended(NamedTuple):
    """How a generation ended (``stop`` or ``length``) and how many tokens were drawn for it, ``END`` not counted."""

    finish_reason: str
    tokens: int


class NgramModel:
    """A language model that looks at the last ``order - 1`` tokens.

    Parameters
    ----------
    index : Index
        What it learned.
    order : int
        1 to 5; a model of order 1 does not look back at all.

    Examples
    --------
    >>> model = NgramModel(train(["a dog barks", "a dog sleeps"]), order=2)
    >>> "".join(piece.text for piece in model.generate("a", temperature=0))
    ' dog barks'
    """

    def __init__(self, index: Index, order: int) -> None:
        if order not in ORDERS:
            raise ValueError(f"the order of a model is {ORDERS[0]} to {ORDERS[-1]}; got {order!r}")
        self.index = index
        self.order = order
        self.number = {token: n for n, token in enumerate(index.vocabulary)}
        self.end = len(index.vocabulary) - 1
        counts = Counter(index.nexts)
        self.unigram = [counts[n] / len(index.nexts) for n in range(self.end + 1)]
        # Most contexts of a text come back often; what they take to prepare is spent once.
        self.followers = lru_cache(maxsize=4096)(self.count_followers)
        self.lots = lru_cache(maxsize=1024)(self.prepare_lots)
        self.words = lru_cache(maxsize=8)(self.prepare_words)

    def context(self, text: str) -> tuple[int, ...]:
        """Return the numbers of the tokens that the model looks at after a text, the nearest first.

        A text is the beginning of a paragraph; of an unknown token, and what stands before it, nothing was learned.
        """
        tokens = [END] * (self.order - 1) + tokenise(text.rstrip())
        nearest = (self.number.get(token) for token in reversed(tokens))
        return tuple(until_unknown(islice(nearest, self.order - 1)))

    def slices(self, context: tuple[int, ...]) -> tuple[Slice, ...]:
        """Return where the context was seen: its last token, its last two tokens, ... as far as there is anything."""
        contexts = self.index.contexts
        low, high, packed, shift = 0, len(contexts), 0, BITS * REACH
        found = []
        for token in context:
            shift -= BITS
            packed |= token << shift
            low = bisect_left(contexts, packed, low, high)
            high = bisect_left(contexts, packed + (1 << shift), low, high)
            if low == high:
                break
            found.append((low, high))
        return tuple(found)

    def count_followers(self, low: int, high: int) -> Counter[int]:
        return Counter(self.index.nexts[low:high])

    def mixture(self, slices: tuple[Slice, ...], *, first: bool) -> Mixture:
        """Return the distribution of the next token; the ``first`` one of an answer is not ``END``, for an answer says something."""
        own: dict[int, float] = {}
        rest = 1.0
        for low, high in reversed(slices):
            counts = self.followers(low, high)
            share = rest / (high - low + len(counts))
            for token, count in counts.items():
                own[token] = own.get(token, 0.0) + share * count
            rest = share * len(counts)
        own.setdefault(self.end, 0.0)
        if not first:
            return Mixture(own, rest)
        left = 1 - own.pop(self.end) - rest * self.unigram[self.end]
        return Mixture({token: value / left for token, value in own.items()}, rest / left)

    def ranked(self, mixture: Mixture) -> Iterator[tuple[float, int]]:
        """All tokens with their probabilities, the likeliest first; of equals, the one more frequent in the text, then by spelling."""
        own, rest = mixture
        unigram = self.unigram
        near = sorted([(-value - rest * unigram[token], token) for token, value in own.items()])
        far = ((-rest * unigram[token], token) for token in range(self.end) if token not in own)
        return ((-negative, token) for negative, token in merge(near, far))

    def prepare_words(self, power: float) -> list[float]:
        """Running sums of every word's frequency, relative to the highest, to a power."""
        top = self.unigram[0]
        return list(accumulate([(value / top) ** power for value in self.unigram[: self.end]]))

    def prepare_lots(self, slices: tuple[Slice, ...], first: bool, temperature: float, top_p: float) -> Lots:
        mixture = self.mixture(slices, first=first)
        if temperature == 0:
            return Lots([next(self.ranked(mixture))[1]], [1.0])
        power = 1 / temperature
        lots = self.tempered(mixture, power)
        return lots if top_p == 1 else self.nucleus(mixture, power, top_p, lots)

    def tempered(self, mixture: Mixture, power: float) -> Lots:
        """Weights ``p ** (1 / temperature)``, relative to the highest so that none overflows.

        A token of the context weighs at least what it weighs as a single one, so what is above that is its own share.
        """
        own, rest = mixture
        unigram, end = self.unigram, self.end
        peak = self.peak(mixture)
        weights = [
            ((value + rest * unigram[token]) / peak) ** power - (0.0 if token == end else (rest * unigram[token] / peak) ** power)
            for token, value in own.items()
        ]
        return Lots(list(own), list(accumulate(weights)), (rest * unigram[0] / peak) ** power, self.words(power))

    def nucleus(self, mixture: Mixture, power: float, top_p: float, lots: Lots) -> Lots:
        """The fewest tokens, likeliest first, that hold ``top_p`` of the weight: A. Holtzman et al., "The curious case of neural
        text degeneration", ICLR 2020."""
        peak = self.peak(mixture)
        enough = top_p * ((lots.bounds[-1] if lots.bounds else 0.0) + lots.scale * lots.words[-1])
        tokens: list[int] = []
        bounds: list[float] = []
        held = 0.0
        for probability, token in self.ranked(mixture):
            held += (probability / peak) ** power
            tokens.append(token)
            bounds.append(held)
            if held >= enough:
                break
        return Lots(tokens, bounds)

    def peak(self, mixture: Mixture) -> float:
        own, rest = mixture
        highest = max([value + rest * self.unigram[token] for token, value in own.items()], default=0.0)
        return max(highest, rest * self.unigram[0])

    def draw_as_learned(self, slices: tuple[Slice, ...], point: float) -> int:
        """Return the token at a point of [0, 1) at temperature 1, ten times faster than by its lots.

        The formula is a mixture: with ``c / (c + d)`` take any place where the longest context was seen, else ask the next shorter.
        """
        nexts = self.index.nexts
        for low, high in reversed(slices):
            seen = high - low
            share = seen / (seen + len(self.followers(low, high)))
            if point < share:
                return nexts[low + int(point / share * seen)]
            point = (point - share) / (1 - share)
        return nexts[min(int(point * len(nexts)), len(nexts) - 1)]

    def probabilities(self, text: str, *, first: bool = False) -> dict[str, float]:
        """Return the probability of every token after a text, the likeliest first.

        Examples
        --------
        >>> model = NgramModel(train(["a dog barks", "a dog sleeps"]), order=2)
        >>> {token: round(p, 3) for token, p in model.probabilities("a dog").items()}
        {' barks': 0.312, ' sleeps': 0.312, ' dog': 0.125, 'a': 0.125, '': 0.125}
        """
        mixture = self.mixture(self.slices(self.context(text)), first=first)
        vocabulary = self.index.vocabulary
        return {vocabulary[token]: probability for probability, token in self.ranked(mixture)}

    def logprob(self, token: int, slices: tuple[Slice, ...], first: bool, top: int) -> TokenLogprob:
        """The natural logarithm of a token's probability (at temperature 1, all tokens allowed), and the likeliest tokens."""
        mixture = self.mixture(slices, first=first)
        vocabulary = self.index.vocabulary
        value = mixture.own.get(token, 0.0) + mixture.rest * self.unigram[token]
        best = tuple((vocabulary[other], math.log(probability)) for probability, other in islice(self.ranked(mixture), top))
        return TokenLogprob(vocabulary[token], math.log(value), best)

    def generate(
        self,
        text: str,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
        max_tokens: int = 64,
        top_logprobs: int | None = None,
    ) -> Generator[Piece, None, Ended]:
        """Continue a text, token by token.

        Parameters
        ----------
        temperature : float
            0 always takes the likeliest token, 1 draws as learned, more is wilder.
        top_p : float
            Draw only among the likeliest tokens that hold this share of the probability.
        seed : int, optional
            The same seed gives the same answer, in every process.
        stop : sequence of str
            The answer ends before the first of these.
        max_tokens : int
            Draw at most so many tokens.
        top_logprobs : int, optional
            Give log-probabilities, and so many alternatives to each token.

        Yields
        ------
        Piece
            A token, or the part of it before a stop text. The generator returns how it ended.
        """
        source = random.Random(seed)
        held = HeldBack(stop)
        context = self.context(text)
        plain = temperature == top_p == 1
        for drawn in range(max_tokens):
            slices = self.slices(context)
            if plain and drawn:
                token = self.draw_as_learned(slices, source.random())
            else:
                token = self.lots(slices, drawn == 0, temperature, top_p).draw(source.random())
            if token == self.end:
                yield from held.rest()
                return Ended("stop", drawn)
            logprobs = () if top_logprobs is None else (self.logprob(token, slices, drawn == 0, top_logprobs),)
            yield from held.add(Piece(self.index.vocabulary[token], logprobs=logprobs))
            if held.stopped:
                return Ended("stop", drawn + 1)
            context = (token, *context)[: self.order - 1]
        yield from held.rest()
        return Ended("length", max_tokens)


def until_unknown(numbers: Iterable[int | None]) -> Iterator[int]:
    for number in numbers:
        if number is None:
            return
        yield number


class HeldBack:
    """Keeps back the pieces that may turn out to be the beginning of a stop text.

    Examples
    --------
    >>> held = HeldBack(["###"])
    >>> [[piece.text for piece in held.add(Piece(text))] for text in ("a", "b#", "#", "c")]
    [['a'], [], [], ['b#', '#', 'c']]
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = stops
        self.pieces: list[Piece] = []
        self.stopped = False

    def add(self, piece: Piece) -> list[Piece]:
        """Return what may be shown now."""
        if not self.stops:
            return [piece]
        self.pieces.append(piece)
        text = "".join([piece.text for piece in self.pieces])
        found = [at for stop in self.stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self.cut(min(found))
        return self.release(min(beginning(text, stop) for stop in self.stops))

    def cut(self, at: int) -> list[Piece]:
        """What stands before a place, the piece across it cut."""
        shown = self.release(at)
        rest = at - sum(len(piece.text) for piece in shown)
        if rest:
            shown.append(self.pieces[0]._replace(text=self.pieces[0].text[:rest]))
        return shown

    def release(self, safe: int) -> list[Piece]:
        """The pieces that end before a place."""
        count = sum(1 for end in accumulate([len(piece.text) for piece in self.pieces]) if end <= safe)
        shown, self.pieces = self.pieces[:count], self.pieces[count:]
        return shown

    def rest(self) -> list[Piece]:
        """What was kept back and turned out to be none."""
        return self.pieces


def beginning(text: str, stop: str) -> int:
    """Where, at its end, a text begins to be a stop text; its length where it does not."""
    return next((len(text) - n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), len(text))
