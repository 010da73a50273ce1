"""Preference pairs beside the answers: does the reward model order them, does the policy that it guides, and how do the
texts of that policy read?

pair accuracy    share of pairs whose chosen answer has the higher summed reward
policy accuracy  share of pairs whose chosen answer the guided policy finds likelier, per token

Ties count half. Pair accuracy says little about steering (arXiv 2512.23067), policy accuracy says more, and neither
says whether texts are still fluent; so a recipe that asks for them must have a scorer of fluency or repetition, whose
means over the guided policy's answers stand beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pad_cli.errors import RecipeError
from pad_cli.evaluation.cells import Scored, rounded
from pad_cli.evaluation.contract import EvalContext, Scorer
from pad_cli.evaluation.statistics import by_prompt, intervals
from pad_cli.pairs import load_pairs
from pad_cli.recipe import EvalRecipe
from pad_cli.records import PreferencePair
from pad_cli.system.progress import bar
from pad_cli.system.runs import ResultLog, fingerprint
from pad_cli.training.remeasure import read_pair

PAIRS = "pairs.jsonl"
_FLUENCY = ("fluency", "repetition")
_PLAIN, _GUIDED = "base", "pad"


@dataclass(frozen=True)
class PairRow:
    """One policy at one guidance weight on one split of pairs; accuracies with the ends of their intervals.

    Attributes:
        policy: its name in the report.
        split: of the pairs.
        guidance_weight: 0 is the policy alone.
        n: pairs.
        prompts: of these pairs.
        pair_accuracy: of the reward model; the same for every guidance weight.
        pair_low: lower end; None for one prompt.
        pair_high: upper end.
        policy_accuracy: of the guided policy; None where it has another vocabulary than the reward model.
        policy_low: lower end.
        policy_high: upper end.
        fluency: scorer to its mean over the answers that `pad` (at weight 0 `base`) gave; None where it failed on one.
    """

    policy: str
    split: str
    guidance_weight: float
    n: int
    prompts: int
    pair_accuracy: float | None
    pair_low: float | None
    pair_high: float | None
    policy_accuracy: float | None
    policy_low: float | None
    policy_high: float | None
    fluency: dict[str, float | None]


class MeasuredPairs:
    """The pairs that a recipe wants measured; none if it has no `pairs`.

    Args:
        recipe: of the evaluation.
        scorers: by their names in the report.
        principles: of the reward model.

    Raises:
        DataError, RecipeError, UsageError: the pairs cannot be read, or nothing in the recipe shows fluency.
    """

    def __init__(self, recipe: EvalRecipe, scorers: Mapping[str, Scorer], principles: Sequence[str]) -> None:
        self._recipe = recipe
        self._fluency = [name for name, scorer in scorers.items() if scorer.dimension in _FLUENCY]
        self.splits: dict[str, tuple[PreferencePair, ...]] = {}
        if recipe.pairs is None:
            return
        if not self._fluency:
            raise RecipeError(
                "pairs: accuracy on pairs says nothing of how texts read, and no scorer of this recipe does.",
                "Add one of fluency or repetition to `scorers`, for example log_perplexity or repeated_4grams.",
            )
        settings = recipe.pairs.model_copy(update={"contrast": False, "limit": None})
        found = load_pairs(settings, seed=0, principles=list(principles) or None)
        self.splits = {split.name: split.pairs for split in found.validation} or {"pairs": found.train}
        if recipe.pairs.limit is not None:
            self.splits = {name: pairs[: recipe.pairs.limit] for name, pairs in self.splits.items()}

    def measure(self, subject: EvalContext, log: ResultLog, scored: Sequence[Scored]) -> Iterator[PairRow]:
        """Measure all splits on one policy; what the log has is not read again.

        Args:
            subject: the policy.
            log: takes in what is new.
            scored: the scores of its answers.
        """
        for name, pairs in self.splits.items():
            subject.engine.check_prompts([(pair.place, pair.prompt) for pair in pairs])
            readings = self._read(subject, name, pairs, log)
            for weight in dict.fromkeys([0.0, *self._recipe.guidance_weights]):
                yield self._row(subject, name, pairs, readings, weight, scored)

    def _read(
        self, subject: EvalContext, split: str, pairs: Sequence[PreferencePair], log: ResultLog
    ) -> list[dict[str, Any]]:
        weights = list(dict.fromkeys([0.0, *self._recipe.guidance_weights]))
        context = [subject.policy.fingerprint, subject.reward_model.fingerprint, weights]
        keys = [fingerprint([*context, pair.content()]) for pair in pairs]
        with bar(f"Measuring pairs: {split}", total=len(pairs)) as progress:
            for key, pair in zip(keys, pairs, strict=True):
                if key in log.done:
                    progress.skip(1)
                else:
                    reading = read_pair(subject.reward_model, pair, subject.policy, weights)
                    likelihoods = {str(weight): both for weight, both in reading.likelihoods.items()}
                    log.append({key: {"rewards": reading.rewards, "likelihoods": likelihoods}})
                    progress.advance()
        return [log.done[key] for key in keys]

    def _row(
        self,
        subject: EvalContext,
        split: str,
        pairs: Sequence[PreferencePair],
        readings: Sequence[Mapping[str, Any]],
        weight: float,
        scored: Iterable[Scored],
    ) -> PairRow:
        prompts = [fingerprint([dict(message) for message in pair.prompt]) for pair in pairs]
        guided = [reading["likelihoods"].get(str(weight)) for reading in readings]
        pair_figures = self._share(prompts, [reading["rewards"] for reading in readings])
        policy_figures = (None, None, None) if None in guided else self._share(prompts, guided)
        method = _GUIDED if weight else _PLAIN
        names = {settings.shown for settings in self._recipe.methods if settings.method == method}
        mine = [
            each
            for each in scored
            if each.policy == subject.name and each.method in names and each.guidance_weight == weight
        ]
        fluency = {name: _mean([each.value for each in mine if each.scorer == name]) for name in self._fluency}
        return PairRow(
            subject.name, split, weight, len(pairs), len(set(prompts)), *pair_figures, *policy_figures, fluency
        )

    def _share(
        self, prompts: Sequence[str], both: Sequence[tuple[float, float]]
    ) -> tuple[float | None, float | None, float | None]:
        """Share of pairs in which the first number is higher, and its interval."""
        wins = ((first > second) + 0.5 * (first == second) for first, second in both)
        sample = by_prompt(zip(prompts, wins, strict=True))
        (ends,) = intervals(
            [sample], confidence=self._recipe.confidence, resamples=self._recipe.resamples, seed=0, bounds=[(0.0, 1.0)]
        )
        return rounded(sample.mean), rounded(ends.low if ends else None), rounded(ends.high if ends else None)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return rounded(sum(known) / len(known)) if known and len(known) == len(values) else None
