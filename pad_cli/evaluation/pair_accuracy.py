"""Preference pairs beside the answers: pair accuracy, policy accuracy, and the fluency of the guided policy.

pair accuracy    share of pairs whose chosen answer has the higher summed reward
policy accuracy  share of pairs whose chosen answer is likelier under the guided policy, per token

Ties count half. Pair accuracy says little about steering (arXiv 2512.23067), policy accuracy says more, and neither
says whether texts are fluent; so a recipe with `pairs` must have a scorer of fluency or repetition, whose means over
the guided policy's answers are in the same rows.

A row of the report is one policy at one guidance weight (0: alone) on one split of n pairs. An interval is null for one
prompt, the policy accuracy if the policy's vocabulary is not the reward model's. `fluency` maps a scorer to its mean
over the answers of `pad` (at weight 0 of `base`); null if a score is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pad_cli.errors import RecipeError
from pad_cli.evaluation.answering import prompt_key
from pad_cli.evaluation.contract import EvalContext, Scorer
from pad_cli.evaluation.report import Scored, rounded
from pad_cli.evaluation.statistics import by_prompt, intervals
from pad_cli.pairs import load_pairs
from pad_cli.recipe import EvalRecipe
from pad_cli.records import PreferencePair
from pad_cli.system.progress import bar
from pad_cli.system.runs import ResultLog, fingerprint
from pad_cli.training.evaluate_checkpoint import read_pair

PAIRS = "pairs.jsonl"
_FLUENCY = ("fluency", "repetition")

Splits = Mapping[str, Sequence[PreferencePair]]


def load_splits(recipe: EvalRecipe, scorers: Mapping[str, Scorer], principles: Sequence[str]) -> Splits:
    """The pairs that a recipe measures, by split: the validation splits, else all pairs; none if it has no `pairs`.

    Raises:
        DataError, UsageError: the pairs cannot be read.
        RecipeError: the recipe has no scorer of fluency or repetition.
    """
    if recipe.pairs is None:
        return {}
    if not any(scorer.dimension in _FLUENCY for scorer in scorers.values()):
        raise RecipeError(
            "pairs: pair accuracy does not measure fluency, and neither does any scorer of this recipe.",
            "Add one of fluency or repetition to `scorers`, for example log_perplexity or repeated_4grams.",
        )
    settings = recipe.pairs.model_copy(update={"contrast": False, "limit": None})
    data = load_pairs(settings, seed=0, principles=list(principles) or None)
    splits = {split.name: split.pairs for split in data.validation} or {"pairs": data.train}
    return {name: pairs[: recipe.pairs.limit] for name, pairs in splits.items()}


def measure_pairs(
    recipe: EvalRecipe,
    splits: Splits,
    context: EvalContext,
    scorers: Mapping[str, Scorer],
    scored: Sequence[Scored],
    log: ResultLog,
) -> Iterator[dict[str, Any]]:
    """Measure pairs on one policy, of whose answers `scored` are the scores; what the log lacks is added to it."""
    weights = list(dict.fromkeys([0.0, *recipe.guidance_weights]))
    fluency = [name for name, scorer in scorers.items() if scorer.dimension in _FLUENCY]
    for split, pairs in splits.items():
        context.engine.check_prompts([(pair.place, pair.prompt) for pair in pairs])
        readings = _read(context, split, pairs, weights, log)
        prompts = [prompt_key(pair) for pair in pairs]
        rewards = _accuracy(recipe, prompts, [reading["rewards"] for reading in readings])
        for weight in weights:
            guided = _accuracy(recipe, prompts, [reading["likelihoods"].get(str(weight)) for reading in readings])
            yield {
                "policy": context.name,
                "split": split,
                "guidance_weight": weight,
                "n": len(pairs),
                "prompts": len(set(prompts)),
                **dict(zip(("pair_accuracy", "pair_low", "pair_high"), rewards, strict=True)),
                **dict(zip(("policy_accuracy", "policy_low", "policy_high"), guided, strict=True)),
                "fluency": {name: _mean_score(recipe, scored, name, weight) for name in fluency},
            }


def _read(
    context: EvalContext, split: str, pairs: Sequence[PreferencePair], weights: list[float], log: ResultLog
) -> list[dict[str, Any]]:
    """Rewards and likelihoods of the two answers of each pair."""
    decided_by = [context.policy.fingerprint, context.reward_model.fingerprint, weights]
    keys = [fingerprint([*decided_by, pair.content()]) for pair in pairs]
    with bar(f"Measuring pairs: {split}", total=len(pairs)) as progress:
        for key, pair in zip(keys, pairs, strict=True):
            if key in log.done:
                progress.skip(1)
                continue
            reading = read_pair(context.reward_model, pair, context.policy, weights)
            likelihoods = {str(weight): both for weight, both in reading.likelihoods.items()}
            log.append({key: {"rewards": reading.rewards, "likelihoods": likelihoods}})
            progress.advance()
    return [log.done[key] for key in keys]


def _accuracy(
    recipe: EvalRecipe, prompts: Sequence[str], both: Sequence[tuple[float, float] | None]
) -> tuple[float | None, float | None, float | None]:
    """Share of pairs whose first number is higher, and its interval; nothing if numbers are missing."""
    wins = [(pair[0] > pair[1]) + 0.5 * (pair[0] == pair[1]) for pair in both if pair is not None]
    if len(wins) < len(both):
        return None, None, None
    sample = by_prompt(zip(prompts, wins, strict=True))
    (ends,) = intervals([sample], confidence=recipe.confidence, resamples=recipe.resamples, seed=0, bounds=[(0.0, 1.0)])
    return rounded(sample.mean), rounded(ends and ends.low), rounded(ends and ends.high)


def _mean_score(recipe: EvalRecipe, scored: Sequence[Scored], scorer: str, weight: float) -> float | None:
    """The mean score of the answers of `pad` at a guidance weight; at 0 of those of `base`."""
    methods = {settings.label for settings in recipe.methods if settings.method == ("pad" if weight else "base")}
    cells = {(method, weight, scorer) for method in methods}
    found = [each for each in scored if (each.cell.method, each.cell.guidance_weight, each.cell.scorer) in cells]
    values = [each.value for each in found if each.value is not None]
    return rounded(sum(values) / len(values)) if values and len(values) == len(found) else None
