"""Which comparison to ask next: the one whose reply tells most about this user's weights.

The expected information of a reply r of "first", "second" or "neither" is

    H(E p) - E H(p)        p = P(r | w), H the entropy in bits

(Lindley 1956; BALD: Houlsby et al. 2011, arXiv 1112.5745), means being taken over a sample of the posterior.
"""

from __future__ import annotations

import numpy as np

from pad_cli.learning.differences import Differences
from pad_cli.learning.fit import Array
from pad_cli.learning.posterior import Posterior, outcomes

_SAMPLE = 400


def information(posterior: Posterior, seen: Differences) -> Array:
    """What each of N comparisons' reply is expected to tell: (N,) bits, between 0 and log2(3)."""
    every = outcomes(seen, posterior.drawn(_SAMPLE))
    bits: Array = _entropy(every.mean(1)) - _entropy(every).mean(0)
    return np.maximum(bits, 0.0)


def _entropy(shares: Array) -> Array:
    """Bits, over the first axis; no share is 0."""
    bits: Array = -(shares * np.log2(shares)).sum(0)
    return bits
