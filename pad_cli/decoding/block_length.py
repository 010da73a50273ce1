"""How many tokens a small reward model drafts, learned from the cost of drafting and verifying and from its hits.

The cost model. If a share p of drafts is right, n drafts bring 1 + p + ... + p^n tokens a row on average: those up to
the first wrong one, and the policy's own token there. They cost n + 1 forward passes of the backbone (it also reads the
last token) and one of the policy over rows * (n + 1) tokens:

    tokens per second (n) = (1 + p + ... + p^n) / ((n + 1) draft + verify(rows * (n + 1)))
    verify(tokens) = a + b * tokens

The length is the n with the highest rate. p, draft, a and b are estimated while decoding, from observations whose
weight fades, since p changes with the text and the cost with the number of rows. A plain step (n = 0) has a cost of its
own: a matrix times one vector can be much cheaper than times two. Where nothing was measured lately an optimistic prior
takes over, so that it is tried again.

Nothing here decides what is written, only how fast; so it may look at a clock.
"""

from __future__ import annotations

_LONGEST = 12  # tokens in one draft
_FIRST = 4  # tokens in the first draft, before any cost is known
_IDLE, _PROBE = 16, 2  # after so many blocks without a draft, one of this length
_FADE = 0.9  # weight of the past after each observation


class _Mean:
    """A mean with fading weights."""

    def __init__(self) -> None:
        self._sum, self.weight = 0.0, 0.0

    def value(self, prior: float = 0.0, prior_weight: float = 0.0) -> float:
        """The mean, with so many more observations (`prior_weight`) of the prior."""
        return (self._sum + prior_weight * prior) / (self.weight + prior_weight)

    def learn(self, total: float, count: float = 1.0) -> None:
        """Add observations with this sum; none fade the past as much as one does."""
        fade = _FADE ** max(count, 1.0)
        self._sum, self.weight = fade * self._sum + total, fade * self.weight + count


class _Line:
    """Seconds that the policy needs for a number of tokens: a + b * tokens, by least squares with fading weights."""

    def __init__(self) -> None:
        self._tokens, self._seconds, self._squares, self._products = _Mean(), _Mean(), _Mean(), _Mean()

    @property
    def known(self) -> bool:
        return self._tokens.weight > 0

    def at(self, tokens: int) -> float:
        """Predicted seconds; the prior is b = a / 30, which rules while every block was equally long."""
        middle, mean = self._tokens.value(), self._seconds.value()
        variance = self._squares.value() - middle**2
        covariance = self._products.value() - middle * mean
        prior = mean / (30 + middle)
        slope = (covariance + prior) / (variance + 1)  # the prior counts as a variance of one token
        return mean + min(max(slope, 0.0), mean / middle) * (tokens - middle)

    def learn(self, tokens: int, seconds: float, count: int = 1) -> None:
        """Add one observation, or none."""
        self._tokens.learn(count * tokens, count)
        self._seconds.learn(count * seconds, count)
        self._squares.learn(count * tokens**2, count)
        self._products.learn(count * tokens * seconds, count)


class BlockLength:
    """How many tokens to draft next.

    Args:
        fixed: always this many; None adapts.
    """

    def __init__(self, fixed: int | None = None) -> None:
        self._fixed = fixed
        self._right = _Mean()  # share of drafts
        self._draft, self._plain, self._verify = _Mean(), _Mean(), _Line()  # seconds
        self._idle = 0

    def next(self, rows: int) -> int:
        """Tokens to draft now in each of N rows."""
        if self._fixed is not None:
            return self._fixed
        if not self._verify.known:
            return _FIRST
        if self._idle >= _IDLE:
            return _PROBE
        return max(range(_LONGEST + 1), key=lambda count: self._rate(count, rows))

    def learn(self, rows: int, count: int, tried: int, right: int, draft_seconds: float, verify_seconds: float) -> None:
        """Add the observations of one block.

        Args:
            rows: B.
            count: tokens drafted in each row.
            tried: drafts in all rows up to each one's first wrong one; later ones tell nothing.
            right: how many of these were right.
            draft_seconds: of one draft in all rows.
            verify_seconds: of the verification.
        """
        drafted = min(count, 1)
        self._right.learn(right / rows, tried / rows)
        self._draft.learn(draft_seconds)
        self._verify.learn(rows * (count + 1), verify_seconds, drafted)
        self._plain.learn(verify_seconds * (1 - drafted), 1 - drafted)
        self._idle = 0 if drafted else self._idle + 1

    def _rate(self, count: int, rows: int) -> float:
        """Expected tokens per second."""
        right = self._right.value(prior=0.8, prior_weight=1.0)
        verify = self._verify.at(rows * (count + 1))
        if not count:
            verify = self._plain.value(prior=0.6 * verify, prior_weight=0.2)
        return sum(right**power for power in range(count + 1)) / ((count + 1) * self._draft.value() + verify)
