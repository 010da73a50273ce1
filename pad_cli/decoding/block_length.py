"""How many tokens a small reward model drafts: learned from the prices of drafting and verifying, and from its hits.

Nothing here decides what is written, only how fast; so it may look at a clock.
"""

from __future__ import annotations

_LONGEST = 12  # tokens in one draft
_FIRST = 4  # tokens in the first draft, before any price is known
_IDLE, _PROBE = 16, 2  # after so many blocks without a draft, one of this length
_MEMORY = 0.9  # how much of what was seen counts on after the next observation


class _Mean:
    """A mean of what was seen lately."""

    def __init__(self) -> None:
        self._sum, self.seen = 0.0, 0.0

    def value(self, belief: float = 0.0, trust: float = 0.0) -> float:
        """The mean, as if so many more observations (`trust`) had been what is believed of what was never seen."""
        return (self._sum + trust * belief) / (self.seen + trust)

    def learn(self, total: float, count: float = 1.0) -> None:
        """Take in so many observations with this sum; to see none fades the past as much as to see one."""
        fade = _MEMORY ** max(count, 1.0)
        self._sum, self.seen = fade * self._sum + total, fade * self.seen + count


class _Line:
    """Seconds that the policy needs for so many tokens: a + b * tokens, by least squares over what was seen lately."""

    def __init__(self) -> None:
        self._tokens, self._seconds, self._squares, self._products = _Mean(), _Mean(), _Mean(), _Mean()

    @property
    def known(self) -> bool:
        return self._tokens.seen > 0

    def at(self, tokens: int) -> float:
        """Seconds; while all that was seen is equally long, b is believed to be a small share of a."""
        middle, mean = self._tokens.value(), self._seconds.value()
        spread = self._squares.value() - middle**2
        together = self._products.value() - middle * mean
        believed = mean / (30 + middle)  # b = a / 30
        slope = (together + believed) / (spread + 1)  # as if a spread of one token had been seen of it
        return mean + min(max(slope, 0.0), mean / middle) * (tokens - middle)

    def learn(self, tokens: int, seconds: float, count: int = 1) -> None:
        """Take in one observation, or none."""
        self._tokens.learn(count * tokens, count)
        self._seconds.learn(count * seconds, count)
        self._squares.learn(count * tokens**2, count)
        self._products.learn(count * tokens * seconds, count)


class BlockLength:
    """How many tokens to draft: as many as are expected to pay.

    With a share p of drafts right, n of them bring 1 + p + ... + p^n tokens on average, and cost n + 1 forwards of the
    backbone and one of the policy over n + 1 tokens. All three are measured while decoding. A plain step (n = 0) has
    its own price: a matrix times one vector can be much cheaper than times two. What was not seen for long is believed
    to be good, so that it is tried again.

    Args:
        fixed: always this many; None adapts.
    """

    def __init__(self, fixed: int | None = None) -> None:
        self._fixed = fixed
        self._right = _Mean()  # share of drafts
        self._draft, self._plain, self._verify = _Mean(), _Mean(), _Line()  # seconds
        self._idle = 0

    def next(self, rows: int) -> int:
        """Tokens to draft now in each of so many rows."""
        if self._fixed is not None:
            return self._fixed
        if not self._verify.known:
            return _FIRST
        if self._idle >= _IDLE:
            return _PROBE
        return max(range(_LONGEST + 1), key=lambda count: self._pace(count, rows))

    def learn(self, rows: int, count: int, tried: int, right: int, draft_seconds: float, verify_seconds: float) -> None:
        """Take in a block.

        Args:
            rows: B.
            count: tokens drafted in each row.
            tried: drafts in all rows up to each one's first wrong one; what follows says nothing.
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

    def _pace(self, count: int, rows: int) -> float:
        """Tokens that are expected in a second."""
        right = self._right.value(belief=0.8, trust=1.0)
        verify = self._verify.at(rows * (count + 1))
        if not count:
            verify = self._plain.value(belief=0.6 * verify, trust=0.2)
        return sum(right**power for power in range(count + 1)) / ((count + 1) * self._draft.value() + verify)
