"""A teacher's answers to prompts, each written under the instruction of one principle; filtered, and kept on disk.

The instructions of a principle and of its opposite are alike but for the principle (RLCD: Yang et al. 2024, arXiv
2307.12950), so two answers to a prompt differ in what the principle asks for. Every answer is then chosen under its own
principle against the answers to the same prompt that were written under another instruction or none.

An answer stays only if its instruction made it likelier: its contrast, in nats a token, is

    (log pi(y | i_k, x) - log pi(y | x)) / |y|

under the language model that is to be steered. An answer that this model gives just as well without being told teaches
nothing about the principle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from pad_cli.contrast.filters import CUT, DUPLICATE, NearDuplicates, find_fault, whole_sentences
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_answer, encode_prompt
from pad_cli.models.scoring import all_log_probs
from pad_cli.principles import instructed
from pad_cli.records import Messages, SourceReport
from pad_cli.system.progress import bar
from pad_cli.system.runs import ResultLog, fingerprint

PLAIN = "plain"
"""Name of the answers that were written without an instruction."""

Prompt = tuple[tuple[str, str], ...]
"""A conversation as (role, content) of each message."""

WEAK, UNANSWERED = "no likelier under its instruction", "no reply"


_LABEL = 40  # characters


@dataclass(frozen=True)
class Request:
    """What a teacher answers: a prompt, (role, content) of each message, under the instruction that names the answer.

    A plain answer has the instruction "".
    """

    prompt: Prompt
    name: str
    instruction: str

    @property
    def label(self) -> str:
        """The beginning of the prompt, for reports."""
        return f"'{self.prompt[-1][1][:_LABEL]}'"

    @property
    def plain(self) -> Messages:
        """The conversation without the instruction."""
        return tuple({"role": role, "content": content} for role, content in self.prompt)

    @property
    def instructed(self) -> Messages:
        """What the teacher reads."""
        return instructed(self.plain, self.instruction)


@dataclass(frozen=True)
class Written:
    """An answer as the teacher gave it; `ended` says that it ended by itself, before the longest length."""

    text: str
    ended: bool


class Teacher(Protocol):
    """A model that answers under instructions."""

    @property
    def key(self) -> Any:
        """What its answers depend on besides the request."""
        ...

    def write(self, requests: Mapping[str, Request], log: ResultLog, advance: Callable[[int], None]) -> None:
        """Answer all requests, which are named by their keys; the log takes in every answer as it comes, a row of
        `text` and `ended`. A request that could not be answered has no row."""
        ...


def ask(requests: Sequence[Request], teacher: Teacher, log: ResultLog, report: SourceReport) -> dict[Request, Written]:
    """The answers to requests: from the log, or from the teacher."""
    keys = {request: fingerprint([teacher.key, request.instructed]) for request in requests}
    waiting = {key: request for request, key in keys.items() if key not in log.done}
    if waiting:
        with bar("Writing answers", total=len(requests)) as progress:
            progress.skip(len(requests) - len(waiting))
            teacher.write(waiting, log, progress.advance)
    answers = {}
    for request, key in keys.items():
        if (row := log.done.get(key)) is None:
            report.drop("row", f"{request.name}: {UNANSWERED}", request.label)
        else:
            answers[request] = Written(row["text"], row["ended"])
    return answers


def select(replies: Mapping[Request, Written], report: SourceReport) -> dict[Request, str]:
    """The answers against which nothing speaks, as text; the others are counted in the report."""
    kept: dict[Request, str] = {}
    of_prompt: dict[Any, NearDuplicates] = {}
    of_name: dict[str, NearDuplicates] = {}
    for request, reply in replies.items():
        text = reply.text.strip() if reply.ended else whole_sentences(reply.text)
        reason = (
            CUT if reply.text.strip() and not text else find_fault(text, request.prompt[-1][1], request.instruction)
        )
        if reason is None:
            same_prompt = of_prompt.setdefault(request.prompt, NearDuplicates()).add(text)
            same_name = of_name.setdefault(request.name, NearDuplicates()).add(text)
            reason = DUPLICATE if same_prompt or same_name else None
        if reason is None:
            kept[request] = text
        else:
            report.drop("row", f"{request.name}: {reason}", request.label)
    return kept


def contrasts(
    answers: Mapping[Request, str], least: float, model: LanguageModel, log: ResultLog, report: SourceReport
) -> dict[Request, str]:
    """The answers that their instruction makes likelier by at least `least` nats a token, and all plain ones."""
    keys = {
        request: fingerprint([model.fingerprint, request.instructed, text])
        for request, text in answers.items()
        if request.instruction
    }
    waiting = [request for request, key in keys.items() if key not in log.done]
    written = [tuple(encode_answer(model.tokenizer, answers[request])) for request in waiting]

    def log_probs(prompts: Iterable[Messages], how: str) -> torch.Tensor:
        sequences = [(tuple(encode_prompt(model.tokenizer, p)), a) for p, a in zip(prompts, written, strict=True)]
        return all_log_probs(model, sequences, title=f"Reading answers {how} their instruction", shared=True)

    if waiting:
        gains = log_probs((request.instructed for request in waiting), "with")
        gains -= log_probs((request.plain for request in waiting), "without")
        means = gains / torch.tensor([len(answer) for answer in written])
        log.append({keys[request]: {"nats": mean} for request, mean in zip(waiting, means.tolist(), strict=True)})
    kept = {}
    for request, text in answers.items():
        if request.instruction and log.done[keys[request]]["nats"] < least:
            report.drop("row", f"{request.name}: {WEAK}", request.label)
        else:
            kept[request] = text
    return kept
