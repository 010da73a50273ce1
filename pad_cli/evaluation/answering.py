"""Answers of one method on one policy, kept in `answers.jsonl` under a key of everything that decides them.

Running again answers only what is missing, in the same batches. What answering took goes to a log of its own: times
differ from run to run, and answers do not.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from pad_cli.evaluation.contract import EvalContext, Method, Sample
from pad_cli.models.memory import Halving
from pad_cli.recipe import DecodingSettings
from pad_cli.records import BenchmarkItem, Generation
from pad_cli.system.processes import Processes
from pad_cli.system.progress import Bar
from pad_cli.system.runs import ResultLog, fingerprint


@dataclass(frozen=True)
class Job:
    """One method at one guidance weight and seed on one policy.

    Attributes:
        name: of the method, in the report.
        method: what answers.
        guidance_weight: 0 for methods that have none.
        settings: how to decode, seed included.
        items: what is asked.
    """

    name: str
    method: Method
    guidance_weight: float
    settings: DecodingSettings
    items: tuple[BenchmarkItem, ...]

    def distinct(self) -> list[BenchmarkItem]:
        """The items to answer: all, or each prompt once when the method does not read the preference."""
        if self.method.reads_preference:
            return list(self.items)
        return list({prompt_key(item): item for item in reversed(self.items)}.values())[::-1]


@dataclass(frozen=True)
class Logs:
    """The files of a run: answers, and what each of them took."""

    answers: ResultLog
    times: ResultLog


def prompt_key(item: BenchmarkItem) -> str:
    """The same for items that ask the same prompt."""
    return fingerprint([dict(message) for message in item.prompt])


def answer(job: Job, subject: EvalContext, logs: Logs, progress: Bar, everyone: Processes) -> list[Sample]:
    """The answers to a job's items, in order; the method answers what the log lacks.

    Of several processes each answers its share, batch by batch: batches are the same however many there are.

    Args:
        job: what to answer.
        subject: on which policy.
        logs: take in what is new.
        progress: shows how many items are answered.
        everyone: whose share is answered.
    """
    items = job.distinct()
    keys = dict(zip((_place(job, item) for item in items), _keys(job, subject, items), strict=True))
    names, size = list(keys.values()), job.settings.batch_size
    mine: set[str] = set()
    for number, start in enumerate(range(0, len(items), size)):
        if not everyone.owns(number):
            continue
        batch, wanted = items[start : start + size], names[start : start + size]
        if all(name in logs.answers.done for name in wanted):
            progress.skip(len(batch))
        else:
            _answer_batch(job, subject, batch, wanted, logs)
            progress.advance(len(batch))
        mine.update(wanted)
    places = [(item, keys[_place(job, item)]) for item in job.items]
    return [Sample(item, logs.answers.done[name]["text"]) for item, name in places if name in mine]


def answer_keys(job: Job, subject: EvalContext) -> list[str]:
    """The keys of a job's answers in the logs, each once."""
    return _keys(job, subject, job.distinct())


def _place(job: Job, item: BenchmarkItem) -> tuple[str, ...]:
    """What an item is answered by; two benchmarks may use one id for different prompts."""
    prompt = prompt_key(item)
    return (item.id, prompt, *item.preference) if job.method.reads_preference else (prompt,)


def _keys(job: Job, subject: EvalContext, items: list[BenchmarkItem]) -> list[str]:
    context = [
        job.method.key(subject),
        subject.policy.fingerprint,
        job.guidance_weight,
        job.settings.model_dump(),
    ]
    return [fingerprint([*context, item.id, prompt_key(item), item.preference]) for item in items]


def _answer_batch(job: Job, subject: EvalContext, batch: list[BenchmarkItem], names: list[str], logs: Logs) -> None:
    started = time.monotonic()
    answers: list[Generation] = []
    for _, given in Halving(f"questions to '{job.name}'").batches(
        batch, len(batch), lambda some: job.method.answer(subject, some, job.settings, job.guidance_weight)
    ):
        answers += given
    seconds = time.monotonic() - started
    rows = {
        name: {
            "method": job.name,
            "policy": subject.name,
            "guidance_weight": job.guidance_weight,
            "seed": job.settings.seed,
            "item": item.id,
            "preference": list(item.preference) if job.method.reads_preference else [],
            "prompt": [dict(message) for message in item.prompt],
            "text": given.text,
            "finish_reason": given.finish_reason,
            "tokens": len(given.token_ids),
        }
        for name, item, given in zip(names, batch, answers, strict=True)
    }
    share = seconds / len(answers)
    taken = {
        name: {"tokens": len(given.token_ids), "seconds": share} for name, given in zip(names, answers, strict=True)
    }
    logs.answers.append({name: row for name, row in rows.items() if name not in logs.answers.done})
    logs.times.append(taken)
