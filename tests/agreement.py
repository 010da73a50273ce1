"""Do two answers agree? Token for token, except at a near tie, where rounding decides; there comparing stops.

Another path, batch, cache, number of threads or set of CPU instructions adds up the same float32 numbers in another
order, so the scores differ in their last digits. Where two tokens score almost the same, either may be written, and the
answers differ from there on. So where two answers part, the guided scores are computed anew after the tokens that both
have, one row alone, and each answer's token has to be one that the decoder chooses when no score is off by more than
`BOUND`: by the best score or by the draw, and with the candidate that is just inside or just outside the set.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import LogitsProcessor, LogitsProcessorList

from pad_cli.decoding.decode import Request, Step, decode_steps
from pad_cli.decoding.engine import PadEngine
from pad_cli.models.prompts import decode_answer
from pad_cli.recipe import DecodingSettings
from pad_cli.records import Generation
from tests.token_prompts import token_items

BOUND = 3e-4
"""Nats by which rounding may move a score: five times the 6e-5 by which scores of tests/decoding/test_architectures.py
differed at most between batches and paths (on AVX-512, AVX2 and neither). One step in 500 or so is such a near tie."""

_CERTAIN = 1e4  # nats; no guidance outweighs it

Answer = Generation | str | Sequence[int]


def alone(
    engine: PadEngine, prompts: Sequence[Any], preferences: Any, settings: DecodingSettings, *weights: Any, **more: Any
) -> list[Request]:
    """Each prompt as a request of its own; arguments as for `PadEngine.items`, or `token_items` if they are tokens."""
    read = functools.partial(token_items, engine) if isinstance(prompts[0], list) else engine.items
    return [engine._request([item], settings) for item in read(prompts, preferences, settings, *weights, **more)]


def each_row(request: Request) -> list[Request]:
    """Each row of a request as a request of its own."""
    parts = []
    for row, prompt in enumerate(request.prompts):
        sampler = copy.copy(request.sampler)
        sampler._streams, sampler._drawn = sampler._streams[row : row + 1], sampler._drawn[row : row + 1]
        guidance = request.guidance and request.guidance.rows(torch.tensor([row]))
        parts.append(replace(request, prompts=[prompt], guidance=guidance, sampler=sampler))
    return parts


def assert_agree(
    first: Sequence[Answer],
    second: Sequence[Answer],
    requests: Sequence[Request],
    decode: Callable[[list[int]], str] | None = None,
) -> None:
    """Answers by two ways to decode, one of each for each request, are the same but for near ties.

    Args:
        first: N answers, as generations or tokens.
        second: N answers; these may be texts, too.
        requests: what each one answers, see `alone`.
        decode: tokens to text; by default as `PadEngine.generate` does it.

    Raises:
        AssertionError: two answers part where no near tie is.
    """
    for number, (one, other, request) in enumerate(zip(first, second, requests, strict=True)):
        if isinstance(other, str):
            read = decode or functools.partial(decode_answer, request.policy.tokenizer, ends=request.policy.end_tokens)
            agree = _text_agrees(_tokens(one), other, request, read)
        else:
            agree = _tokens_agree(_tokens(one), _tokens(other), request)
        assert agree, f"answer {number + 1} differs, and not at a near tie: {one!r}, {other!r}"


def row_of(step: Step, row: int) -> Step:
    """One row of a step, as a step of its own."""
    tensors = (step.tokens, step.candidates, step.log_probs, step.scores)
    return Step([step.rows[row]], *(tensor[row : row + 1] for tensor in tensors))


def assert_same_scores(ours: Step, theirs: Step) -> None:
    """Scores of one row by two ways to compute are the same but for rounding, and for candidates at the set's edge."""
    torch.testing.assert_close(ours.log_probs, theirs.log_probs, atol=BOUND, rtol=BOUND)  # both best first
    edge = float(ours.log_probs.min()) + 2 * BOUND
    scores = [dict(zip(step.candidates[0].tolist(), step.scores[0].tolist(), strict=True)) for step in (ours, theirs)]
    log_probs = [
        dict(zip(step.candidates[0].tolist(), step.log_probs[0].tolist(), strict=True)) for step in (ours, theirs)
    ]
    shared = scores[0].keys() & scores[1].keys()
    assert all(each[token] <= edge for each in log_probs for token in each.keys() - shared)
    assert {token: scores[0][token] for token in shared} == {
        token: pytest.approx(scores[1][token], abs=BOUND, rel=BOUND) for token in shared
    }


def choices(request: Request, answer: Sequence[int], bound: float = BOUND) -> set[int]:
    """The tokens of which any may follow the beginning of an answer when each score is off by at most `bound` nats."""
    count = request.candidates
    step = step_after(request, answer)
    found = _choices(request, step, len(answer), bound)
    wider = step_after(replace(request, candidates=count + 1), answer)
    if wider.log_probs.shape[1] > count and float(wider.log_probs[0, -2] - wider.log_probs[0, -1]) <= 2 * bound:
        for last in (count - 1, count):  # either may be the last candidate
            kept = [*range(count - 1), last]
            parts = (tensor[:, kept] for tensor in (wider.candidates, wider.log_probs, wider.scores))
            found |= _choices(request, Step([0], wider.tokens, *parts), len(answer), bound)
    return found


def step_after(request: Request, answer: Sequence[int]) -> Step:
    """What competes for the token after the beginning of an answer to a request of one row."""
    processors = LogitsProcessorList([*request.processors, _Dictation(len(request.prompts[0]), answer)])
    dictated = replace(request, processors=processors, max_new_tokens=len(answer) + 1, ignore_eos=True)
    *before, last = decode_steps(dictated)
    assert [int(step.tokens[0]) for step in before] == list(answer)
    return last


class _Dictation(LogitsProcessor):
    """Makes each token of an answer's beginning certain."""

    def __init__(self, start: int, answer: Sequence[int]) -> None:
        self._start, self._answer = start, answer

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        place = input_ids.shape[1] - self._start
        if place < len(self._answer):
            scores = scores.clone()
            scores[:, self._answer[place]] = _CERTAIN
        return scores


def _choices(request: Request, step: Step, place: int, bound: float) -> set[int]:
    """What is chosen when scores move: one token up and all others down, or all up to a token up and those after it
    down, which moves the borders between draws as far as they can; and the other way round."""
    count = step.candidates.shape[1]
    one_up = 2 * torch.eye(count) - 1
    below = torch.where(step.candidates[0] <= step.candidates[0][:, None], 1.0, -1.0)
    scores = step.scores + bound * torch.cat([one_up, below, -below])
    rows = len(scores)
    chosen = request.sampler.choose(step.candidates.expand(rows, -1), scores, [0] * rows, [place] * rows)
    return set(chosen.tolist())


def _tokens(answer: Answer) -> list[int]:
    assert not isinstance(answer, str)
    return list(answer.token_ids if isinstance(answer, Generation) else answer)


def _tokens_agree(tokens: list[int], others: list[int], request: Request) -> bool:
    for place, pair in enumerate(zip(tokens, others, strict=False)):
        if len(set(pair)) > 1:
            return set(pair) <= choices(request, tokens[:place])
    return len(tokens) == len(others)


def _text_agrees(tokens: list[int], text: str, request: Request, decode: Callable[[list[int]], str]) -> bool:
    """Is it the text of these tokens, or does it go on with another token that may stand at one of their places?"""

    def begins(beginning: list[int]) -> bool:  # with all but the last character, of which it may have some bytes only
        return text.startswith(decode(beginning).rstrip("\N{REPLACEMENT CHARACTER}"))

    if text == decode(tokens):
        return True
    for place, token in enumerate(tokens):
        if not begins(tokens[:place]):
            break
        if any(begins([*tokens[:place], other]) for other in choices(request, tokens[:place]) - {token}):
            return True
    return False
