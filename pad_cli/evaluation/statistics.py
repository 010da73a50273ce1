"""How certain a mean over prompts is, and whether two methods differ. The unit of observation is the prompt.

Scores of one prompt under several preferences are not independent, so resampling and counting go by prompt: N prompts
are N observations, however many items they stand for.

mean         sum of all scores / number of scores = sum_i s_i / sum_i k_i, with s_i the sum of prompt i's k_i scores
stderr       sqrt(N / (N - 1) * sum_i (s_i - k_i mean)^2) / sum_i k_i; with one score a prompt that is sd / sqrt(N)
interval     bootstrap over prompts, BCa (Efron 1987); scipy's
p            two-sided permutation test of a paired difference: without an effect, prompt i's difference is as likely as
             its opposite, so signs are flipped; exact for few prompts; scipy's
holm         p times the number of comparisons still to be rejected (Holm 1979)
effect size  mean / sd of the prompts' mean differences (Cohen's d_z)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap, permutation_test

Vector = NDArray[np.float64]

_FLIPS = 9999  # sign flips of a test; all of them if there are fewer
_BATCH = 500  # resamples held at once
_SAME = 1e-12  # spread of prompts' means below which they count as equal


class Interval(NamedTuple):
    """Ends of a confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Sample:
    """Scores (or differences of scores), by prompt: N names, sorted, with the (N,) sums and numbers of their scores."""

    prompts: tuple[str, ...]
    sums: Vector
    sizes: Vector

    @property
    def mean(self) -> float:
        return float(self.sums.sum() / self.sizes.sum())

    @property
    def stderr(self) -> float | None:
        """Standard error of the mean; None for one prompt."""
        count = len(self.prompts)
        if count < 2:
            return None
        residuals = self.sums - self.mean * self.sizes
        return float(np.sqrt(count / (count - 1) * (residuals**2).sum()) / self.sizes.sum())

    @property
    def effect_size(self) -> float | None:
        """Cohen's d_z of differences; None for one prompt, or if all prompts differ by the same."""
        if not self.varies:
            return None
        means = self.sums / self.sizes
        return float(means.mean() / means.std(ddof=1))

    @property
    def varies(self) -> bool:
        """Whether the prompts' means differ."""
        return bool(np.ptp(self.sums / self.sizes) > _SAME)


def by_prompt(scores: Iterable[tuple[str, float]]) -> Sample:
    """A sample from (prompt, score), at least one."""
    groups: dict[str, list[float]] = {}
    for prompt, score in scores:
        groups.setdefault(prompt, []).append(score)
    names = tuple(sorted(groups))
    sizes = np.array([len(groups[name]) for name in names], float)
    return Sample(names, np.array([sum(groups[name]) for name in names]), sizes)


def intervals(
    samples: Sequence[Sample],
    *,
    confidence: float,
    resamples: int,
    seed: int,
    bounds: Sequence[tuple[float, float] | None] | None = None,
) -> list[Interval | None]:
    """Intervals of the samples' means; None for one prompt.

    Samples of the same prompts share their resamples. If all prompts have the same mean m, the bootstrap interval would
    have zero width; but up to u = 1 - (1 - confidence)^(1/N) of all prompts (about 3/N at 95 %) may be different, so
    the interval is that of a mean with a share u of prompts at a bound; without bounds it is m.

    `bounds` are the limits of each sample's scores, None if unknown.
    """
    limits = bounds or [None] * len(samples)
    result = [_constant_interval(sample, confidence, limit) for sample, limit in zip(samples, limits, strict=True)]
    for rows in _same_prompts(samples):
        if varied := [row for row in rows if samples[row].varies]:
            ends = _bootstrap([samples[row] for row in varied], confidence, resamples, seed)
            for row, interval in zip(varied, ends, strict=True):
                result[row] = interval
    return result


def p_values(differences: Sequence[Sample], *, seed: int) -> list[float]:
    """For each sample of differences the probability of one at least as far from 0 by chance; 1 for one prompt."""
    result = [1.0] * len(differences)
    for rows in _same_prompts(differences):
        if len(differences[rows[0]].prompts) < 2:
            continue
        test = permutation_test(
            (np.stack([differences[row].sums for row in rows]),),
            lambda flipped, axis: flipped.sum(axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=_FLIPS,
            batch=_BATCH,
            axis=-1,
            random_state=np.random.default_rng(seed),
        )
        for row, p in zip(rows, test.pvalue, strict=True):
            result[row] = float(p)
    return result


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction of one table's p-values, in their order."""
    corrected, highest = [0.0] * len(p), 0.0
    for rank, row in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - rank) * p[row]))
        corrected[row] = highest
    return corrected


def _constant_interval(sample: Sample, confidence: float, bounds: tuple[float, float] | None) -> Interval | None:
    if len(sample.prompts) < 2:
        return None
    low, high = bounds or (sample.mean, sample.mean)
    other = 1 - (1 - confidence) ** (1 / len(sample.prompts))
    return Interval(sample.mean - other * (sample.mean - low), sample.mean + other * (high - sample.mean))


def _bootstrap(samples: Sequence[Sample], confidence: float, resamples: int, seed: int) -> list[Interval]:
    """Intervals of M samples of the same N prompts, none of them constant."""
    sums, sizes = np.stack([sample.sums for sample in samples]), np.stack([sample.sizes for sample in samples])
    count = sums.shape[1]

    def means(drawn: NDArray[np.int64], axis: int) -> Vector:
        # (..., N') prompt numbers, resampled once for all samples, to (M, ...) means: counting how often each prompt
        # was drawn turns the means of all samples into two matrix products
        draws = drawn.reshape(-1, drawn.shape[-1])
        places = draws + count * np.arange(len(draws))[:, None]
        times = np.bincount(places.ravel(), minlength=count * len(draws)).reshape(-1, count).T
        return ((sums @ times) / (sizes @ times)).reshape(len(sums), *drawn.shape[:-1])

    ends = bootstrap(
        (np.arange(count),),
        means,
        vectorized=True,
        confidence_level=confidence,
        n_resamples=resamples,
        batch=_BATCH,
        method="BCa",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return [Interval(float(low), float(high)) for low, high in zip(ends.low, ends.high, strict=True)]


def _same_prompts(samples: Sequence[Sample]) -> list[list[int]]:
    """Numbers of the samples, those of the same prompts together."""
    rows: dict[tuple[str, ...], list[int]] = {}
    for row, sample in enumerate(samples):
        rows.setdefault(sample.prompts, []).append(row)
    return list(rows.values())
