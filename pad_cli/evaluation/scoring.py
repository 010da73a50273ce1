"""Scores of answers, kept in `scores.jsonl`; a scorer that fails on one text fails for that text only, and visibly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pad_cli.errors import PadError, RecipeError
from pad_cli.evaluation.answering import prompt_key
from pad_cli.evaluation.contract import EvalContext, Sample, Score, Scorer
from pad_cli.models.memory import Halving, is_out_of_memory
from pad_cli.recipe import ScorerSettings
from pad_cli.recipe.options import make_with
from pad_cli.registry import SCORERS
from pad_cli.system.progress import Bar, note
from pad_cli.system.runs import ResultLog, fingerprint


@dataclass(frozen=True)
class TextScorer:
    """A registered `(text, facts) -> float`, or what a registered factory of such gives, as a `Scorer`."""

    entry: Any
    batch_size: int = 512

    @property
    def description(self) -> str:
        return str(self.entry.description)

    @property
    def dimension(self) -> str:
        return str(getattr(self.entry, "dimension", self.entry.name))

    @property
    def higher_is_better(self) -> bool:
        return bool(self.entry.higher_is_better)

    @property
    def unit(self) -> str:
        return str(getattr(self.entry, "unit", ""))

    @property
    def facts(self) -> tuple[str, ...]:
        return tuple(getattr(self.entry, "facts", ()))

    def key(self, subject: EvalContext) -> Any:
        return [self.entry.name, self.entry.description]

    def score(self, samples: Sequence[Sample], subject: EvalContext) -> list[Score]:
        return [Score(float(self.entry(text, item.facts))) for item, text in samples]


def load_scorer(settings: ScorerSettings) -> Scorer:
    """A scorer of a recipe.

    Raises:
        UsageError: nothing has that name.
        RecipeError: it does not take these options.
    """
    entry = SCORERS.get(settings.scorer)
    if hasattr(entry, "higher_is_better") and not isinstance(entry, type):
        if settings.options:
            raise RecipeError(f"scorers: '{settings.scorer}' takes no options.", "Leave `options` out.")
        return TextScorer(entry)
    where, hint = f"scorers: options of '{settings.scorer}'", "See docs/evaluation.md for what it takes."
    made = make_with(entry, settings.options, where, hint)
    scorer: Scorer = made if hasattr(made, "score") else TextScorer(made)
    return scorer


def score(
    name: str,
    scorer: Scorer,
    samples: Sequence[Sample],
    subject: EvalContext,
    log: ResultLog,
    progress: Bar | None = None,
) -> list[Score | None]:
    """The scores of some answers, in order; None where the scorer failed, which is tried again by the next run.

    Args:
        name: of the scorer, for messages.
        scorer: what scores.
        samples: what is scored.
        subject: whose answers they are.
        log: what was scored before; takes in what is new.
        progress: shows how many answers have their score.

    Raises:
        PadError: the scorer cannot work at all, and says why.
    """
    key = scorer.key(subject)
    keys = [fingerprint([key, prompt_key(item), item.preference, dict(item.facts), text]) for item, text in samples]
    missing = list({k: sample for k, sample in zip(keys, samples, strict=True) if k not in log.done}.items())

    def found(batch: Sequence[tuple[str, Sample]]) -> list[Score | None]:
        return _scored(name, scorer, [sample for _, sample in batch], subject)

    progress = progress or Bar()
    progress.skip(len(samples) - len(missing))
    for batch, scores in Halving(f"answers for the scorer '{name}'").batches(missing, scorer.batch_size, found):
        log.append({k: given._asdict() for (k, _), given in zip(batch, scores, strict=True) if given is not None})
        progress.advance(len(batch))
    return [Score(**log.done[k]) if k in log.done else None for k in keys]


def _scored(name: str, scorer: Scorer, samples: Sequence[Sample], subject: EvalContext) -> list[Score | None]:
    """Scores of one batch; when the batch fails, of each text on its own."""
    try:
        scores = scorer.score(samples, subject)
        if not all(math.isfinite(found.value) for found in scores):
            raise ValueError("the score is not a number")
        return list(scores)
    except PadError:
        raise
    except Exception as error:  # whatever somebody's scorer raises
        if len(samples) > 1 and is_out_of_memory(error):
            raise
        if len(samples) == 1:
            note(f"The scorer '{name}' failed on the answer to {samples[0].item.id}: {type(error).__name__}: {error}")
            return [None]
        return [part for sample in samples for part in _scored(name, scorer, [sample], subject)]
