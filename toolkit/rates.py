"""From the arrivals of a stream to its rates: pieces and counts of tokens in, numbers out.

Servers put several tokens into a piece, and the network several pieces into a read. So an arrival counts as many tokens as its
characters' share of the reported usage, and every rate is the same however the tokens were packed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

__all__ = ["Gap", "TokenFlow"]

ONE_EACH = 0.02
"""Pieces and tokens may differ by so much where each piece is a token: the end of the answer is a token that nobody sees."""

Piece = tuple[float, Any, int]
"""Seconds since the request, channel (an ``EventKind``), characters."""

Arrival = tuple[float, float]
"""Seconds since the request, tokens."""


class Gap(NamedTuple):
    """The wait for one arrival: seconds for each of its tokens, and how many they are."""

    token_s: float
    tokens: float


@dataclass(frozen=True, kw_only=True)  # without slots: figures are worked out when they are first asked for, and kept
class TokenFlow:
    """How the tokens of one answer came.

    Attributes
    ----------
    latency_s : float
        The good attempt, from handing over the request to the end of the answer.
    pieces : tuple
        What came when: seconds since the request, channel, characters. Empty for an answer that came whole.
    output_tokens, reasoning_tokens : int or None
        As the service reported them; the reasoning is a part of the output.

    Examples
    --------
    Nine tokens of two characters, three in an arrival, one each 10 ms:

    >>> flow = TokenFlow(latency_s=0.1, pieces=((0.03, "text", 6), (0.06, "text", 6), (0.09, "text", 6)), output_tokens=9)
    >>> round(flow.output_tokens_per_s), round(flow.e2e_tokens_per_s), [round(gap, 3) for gap in flow.inter_token_s]
    (100, 90, [0.01, 0.01])
    """

    latency_s: float
    pieces: tuple[Piece, ...] = ()
    output_tokens: int | None = None
    reasoning_tokens: int | None = None

    @property
    def e2e_tokens_per_s(self) -> float | None:
        """Output tokens over the latency."""
        return self.output_tokens / self.latency_s if self.output_tokens and self.latency_s > 0 else None

    @cached_property
    def output_tokens_per_s(self) -> float | None:
        """Tokens after the first arrival of any channel, over the time from there to the last."""
        return rate(self.arrivals)

    @property
    def answer_tokens_per_s(self) -> float | None:
        """The same of the answer alone, without the reasoning before it."""
        return rate(self.arrived(piece for piece in self.pieces if piece[1] != "reasoning")) if self.pieces else None

    @property
    def tpot_s(self) -> float | None:
        """Seconds for each token after the first arrival."""
        per_s = self.output_tokens_per_s
        return 1 / per_s if per_s else None

    @cached_property
    def gaps(self) -> tuple[Gap, ...]:
        """The waits between arrivals; where the service counts no tokens, each piece counts as one."""
        if not self.pieces:
            return ()
        arrivals = self.arrivals or merged((at, 1.0) for at, _, _ in self.pieces)
        return tuple(Gap((later - earlier) / tokens, tokens) for (earlier, _), (later, tokens) in pairwise(arrivals))

    @property
    def inter_token_s(self) -> tuple[float, ...]:
        """The gaps alone, without their weights."""
        return tuple(gap.token_s for gap in self.gaps)

    def inter_token_percentile(self, q: float) -> float | None:
        """Return the gap that a share ``q`` of the tokens did not exceed."""
        if not self.gaps:
            return None
        left = q * sum(gap.tokens for gap in self.gaps)
        for token_s, tokens in self.ascending_gaps:
            left -= tokens
            if left <= 1e-9:  # sums of shares are not exact
                return token_s
        return None

    @cached_property
    def ascending_gaps(self) -> list[Gap]:
        return sorted(self.gaps)

    @cached_property
    def arrivals(self) -> list[Arrival]:
        """When tokens came, and how many; empty where that is not known."""
        return self.arrived(self.pieces) if self.pieces else []

    def arrived(self, pieces: Iterable[Piece]) -> list[Arrival]:
        thought, said = self.shares
        counted = ((at, (thought if kind == "reasoning" else said).of(size)) for at, kind, size in pieces)
        return merged((at, tokens) for at, tokens in counted if tokens > 0)

    @cached_property
    def shares(self) -> tuple[Share, Share]:
        """How the reported tokens are shared out: those of the reasoning, and the rest.

        Each channel has its own share where the service counts them apart, for reasoning that it counts but does not show would
        otherwise make the answer look faster than it came.
        """
        thought = [size for _, kind, size in self.pieces if kind == "reasoning" and size]
        said = [size for _, kind, size in self.pieces if kind != "reasoning" and size]
        tokens, reasoning = self.output_tokens or 0, self.reasoning_tokens or 0
        if reasoning and said and reasoning < tokens:
            return share(reasoning, thought), share(tokens - reasoning, said)
        together = share(tokens, thought + said)
        return together, together


class Share(NamedTuple):
    """How many tokens a piece carries."""

    per_piece: float = 0.0
    per_character: float = 0.0

    def of(self, size: int) -> float:
        return (self.per_piece if size else 0.0) + self.per_character * size


def share(tokens: int, sizes: list[int]) -> Share:
    """Share tokens out to pieces: one each where there are as many, else by characters."""
    if not sizes:
        return Share()
    if abs(len(sizes) - tokens) <= ONE_EACH * tokens:
        return Share(per_piece=tokens / len(sizes))
    return Share(per_character=tokens / sum(sizes))


def merged(arrivals: Iterable[Arrival]) -> list[Arrival]:
    """Make one arrival of what came at the same time."""
    found: list[Arrival] = []
    for at, tokens in arrivals:
        if found and at <= found[-1][0]:
            tokens += found.pop()[1]
        found.append((at, tokens))
    return found


def rate(arrivals: list[Arrival]) -> float | None:
    """Return tokens a second between the first arrival and the last.

    The tokens of the first are left out: they were made before it, so it only starts the clock.
    """
    if len(arrivals) < 2:
        return None
    return sum(tokens for _, tokens in arrivals[1:]) / (arrivals[-1][0] - arrivals[0][0])
