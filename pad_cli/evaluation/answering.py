"""Answers and scores on one policy, each kept in a log under a key of everything that decides it.

A later run answers and scores only what is missing, in the same batches. Answering times go to a log of their own:
they differ from run to run, answers do not.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pad_cli.errors import PadError
from pad_cli.evaluation.contract import Answer, EvalContext, Method, Score, Scorer, System
from pad_cli.evaluation.report import CellKey, ItemKey, Scored
from pad_cli.models.forward import is_out_of_memory
from pad_cli.models.scoring import BatchSizeBackoff
from pad_cli.recipe import DecodingSettings
from pad_cli.records import BenchmarkItem, Generation, PreferencePair
from pad_cli.system.processes import ALONE, Processes
from pad_cli.system.progress import Bar, note
from pad_cli.system.runs import ResultLog, fingerprint


def prompt_key(item: BenchmarkItem | PreferencePair) -> str:
    """The same for all items, or pairs, of one prompt."""
    return fingerprint([dict(message) for message in item.prompt])


def question_key(method: Method, item: BenchmarkItem) -> tuple[str, ...]:
    """The same for items that share an answer: those of one prompt if the method does not read the preference.

    Two benchmarks may use one id for different prompts.
    """
    prompt = prompt_key(item)
    return (item.id, prompt, *item.preference) if method.reads_preference else (prompt,)


def place_of(answer: Answer, scorer: str = "") -> tuple[CellKey, ItemKey]:
    """Where a scorer's number for an answer stands in the report."""
    item, system = answer.item, answer.system
    cell = CellKey(system.method, system.policy, item.group, item.label, system.guidance_weight, scorer)
    return cell, ItemKey(prompt_key(item), item.label, item.id)


@dataclass(frozen=True)
class Job:
    """One method at one guidance weight and seed on one policy: `settings` say how to decode, seed included."""

    context: EvalContext
    system: System
    method: Method
    settings: DecodingSettings

    @functools.cached_property
    def questions(self) -> dict[tuple[str, ...], BenchmarkItem]:
        """Question to the first item that asks it."""
        first = {question_key(self.method, item): item for item in reversed(self.context.items)}
        return dict(reversed(first.items()))

    @functools.cached_property
    def keys(self) -> dict[tuple[str, ...], str]:
        """Question to the key of its answer in the logs."""
        policy, settings = self.context.policy.fingerprint, self.settings.decisive
        decided_by = [self.method.key(self.context), policy, self.system.guidance_weight, settings]
        return {
            question: fingerprint([*decided_by, item.id, prompt_key(item), item.preference])
            for question, item in self.questions.items()
        }


def answer(job: Job, log: ResultLog, times: ResultLog, progress: Bar, everyone: Processes = ALONE) -> list[Answer]:
    """Answers to the items of a job, in order; the method answers what the log lacks.

    Of several processes each answers its share, batch by batch: the batches do not depend on the number of processes.
    """
    questions = list(zip(job.questions.values(), job.keys.values(), strict=True))
    size = job.settings.batch_size
    mine: set[str] = set()
    for number, start in enumerate(range(0, len(questions), size)):
        if not everyone.owns(number):
            continue
        items, keys = zip(*questions[start : start + size], strict=True)
        if all(key in log.done for key in keys):
            progress.skip(len(keys))
        else:
            _answer_batch(job, items, keys, log, times)
            progress.advance(len(keys))
        mine.update(keys)
    key_of = [(item, job.keys[question_key(job.method, item)]) for item in job.context.items]
    return [Answer(item, log.done[key]["text"], job.system, job.settings.seed) for item, key in key_of if key in mine]


def _answer_batch(
    job: Job, items: Sequence[BenchmarkItem], keys: Sequence[str], log: ResultLog, times: ResultLog
) -> None:
    def decode(batch: Sequence[BenchmarkItem]) -> list[Generation]:
        return job.method.answer(job.context, batch, job.settings, job.system.guidance_weight)

    started = time.monotonic()
    backoff = BatchSizeBackoff(f"questions to '{job.system.method}'")
    generations = [answer for _, part in backoff.batches(items, len(items), decode) for answer in part]
    seconds = (time.monotonic() - started) / len(generations)
    rows, time_rows = {}, {}
    for key, item, generation in zip(keys, items, generations, strict=True):
        prompt = {"prompt_tokens": generation.prompt_tokens}
        time_rows[key] = {"tokens": len(generation.token_ids), "seconds": seconds, **prompt}
        if key not in log.done:
            rows[key] = {
                **job.system._asdict(),
                "seed": job.settings.seed,
                "item": item.id,
                "preference": list(item.preference) if job.method.reads_preference else [],
                "prompt": [dict(message) for message in item.prompt],
                "text": generation.text,
                "finish_reason": generation.finish_reason,
                "tokens": len(generation.token_ids),
            }
    log.append(rows)
    times.append(time_rows)


def score(
    name: str,
    scorer: Scorer,
    answers: Sequence[Answer],
    context: EvalContext,
    log: ResultLog,
    progress: Bar | None = None,
) -> list[Scored]:
    """Scores of one policy's answers, in order; the scorer, called `name` in the report, scores what the log lacks.

    An answer on which the scorer failed has no value, and is tried again by a later run.

    Raises:
        PadError: the scorer cannot work at all, and says why.
    """
    scored_by = scorer.key(context)
    keys = [
        fingerprint([scored_by, prompt_key(item), item.preference, dict(item.facts), text])
        for item, text, *_ in answers
    ]
    missing = list({key: answer for key, answer in zip(keys, answers, strict=True) if key not in log.done}.items())

    def score_batch(batch: Sequence[tuple[str, Answer]]) -> list[Score | None]:
        return _score_batch(name, scorer, [answer for _, answer in batch], context)

    progress = progress or Bar()
    progress.skip(len(answers) - len(missing))
    backoff = BatchSizeBackoff(f"answers for the scorer '{name}'")
    for batch, scores in backoff.batches(missing, scorer.batch_size, score_batch):
        log.append({key: new._asdict() for (key, _), new in zip(batch, scores, strict=True) if new is not None})
        progress.advance(len(batch))
    results = (log.done.get(key, {"value": None}) for key in keys)
    return [Scored(*place_of(answer, name), **result) for answer, result in zip(answers, results, strict=True)]


def _score_batch(name: str, scorer: Scorer, answers: Sequence[Answer], context: EvalContext) -> list[Score | None]:
    """Scores of one batch; if the batch fails, of each answer on its own."""
    try:
        scores = scorer.score(answers, context)
        if not all(math.isfinite(score.value) for score in scores):
            raise ValueError("the score is not a finite number")
        return list(scores)
    except PadError:
        raise
    except Exception as error:  # a plug-in's scorer may raise anything
        if len(answers) > 1 and is_out_of_memory(error):
            raise
        if len(answers) == 1:
            note(f"The scorer '{name}' failed on the answer to {answers[0].item.id}: {type(error).__name__}: {error}")
            return [None]
        return [result for answer in answers for result in _score_batch(name, scorer, [answer], context)]
