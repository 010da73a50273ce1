"""Speculative decoding: a small reward model drafts, the large policy verifies a block of tokens in one forward.

The reward model's backbone stands in for the policy: its own logits plus the guidance propose a token, and the next,
and so on. The policy then reads the whole block at once, and the true guided scores at every place decide, with the
same random number that the draft had. Drafted tokens are kept up to the first that differs, and there the true one is
written. So the text is the one that `decode_steps` writes, greedy or sampled, up to rounding; only its price differs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch
from torch.nn.functional import pad

from pad_cli.decoding.block_length import BlockLength
from pad_cli.decoding.loop import Request, Step, choose, guide, processed
from pad_cli.decoding.ragged_stream import RaggedStream, can_be_ragged
from pad_cli.decoding.readers import Guidance
from pad_cli.equation import select_candidates
from pad_cli.models.language_model import LanguageModel


def can_speculate(policy: LanguageModel, guidance: Guidance | None, rows: int) -> bool:
    """Is there a second model that can draft, and can both models take tokens back?"""
    if guidance is None or guidance.path != "separate" or guidance.model.reference == "backbone":
        return False
    return can_be_ragged(policy, rows) and can_be_ragged(guidance.model.backbone, rows)


@torch.inference_mode()
def speculate_steps(request: Request, length: BlockLength) -> Iterator[Step]:
    """Answer a batch of prompts as `decode_steps` does; each step holds one token of one row."""
    assert request.guidance is not None
    guidance, rows = request.guidance, list(range(len(request.prompts)))
    ends = set(request.ends().tolist())
    answers: list[list[int]] = [[] for _ in rows]
    pending = [prompt[-1] for prompt in request.prompts]  # known, but read by neither model yet
    reward_pending = [prompt[-1] for prompt in guidance.prompts]
    policy = RaggedStream(request.policy, [prompt[:-1] for prompt in request.prompts])
    reward = RaggedStream(guidance.model.backbone, [prompt[:-1] for prompt in guidance.prompts])
    while True:
        count = min(length.next(len(rows)), min(request.limits[row] - len(answers[row]) for row in rows) - 1)
        written = [answers[row] for row in rows]
        start = time.perf_counter()
        drafts, states = _draft(request, guidance, reward, reward_pending, written, rows, count)
        middle = time.perf_counter()
        step = _verify(request, guidance, policy, states, pending, drafts, written, rows)
        verified = step.tokens.view(len(rows), count + 1).tolist()
        end = time.perf_counter()
        kept, excess, tried, right = [], [], 0, 0
        for index, row in enumerate(rows):
            for place, token in enumerate(verified[index]):
                answers[row].append(token)
                yield _of_row(step, index * (count + 1) + place)
                is_right = place < count and token == drafts[index][place]
                tried += place < count
                right += is_right
                if token in ends or len(answers[row]) == request.limits[row]:
                    break
                if request.stopped is not None and request.stopped(row):
                    break
                if not is_right:
                    kept.append(index)
                    excess.append(count - place)
                    break
        length.learn(len(rows), count, tried, right, (middle - start) / (count + 1), end - middle)
        if not kept:
            return
        if len(kept) < len(rows):
            policy.keep(kept)
            reward.keep(kept)
            guidance = guidance.rows(torch.tensor(kept))
            rows = [rows[index] for index in kept]
        policy.take_back(excess)
        reward.take_back(excess)
        pending = reward_pending = [answers[row][-1] for row in rows]


def _draft(
    request: Request,
    guidance: Guidance,
    reward: RaggedStream,
    pending: Sequence[int],
    written: Sequence[list[int]],
    rows: Sequence[int],
    count: int,
) -> tuple[list[list[int]], torch.Tensor]:
    """Propose `count` tokens for every row; also the backbone's states (B, count + 1, H) before each and after all."""
    states = [reward.read([[token] for token in pending])[:, -1]]
    answers, drafts = _table(written, request.policy.device), []
    for place in range(count):
        logits = guidance.model.backbone.head(states[-1]).to(request.policy.device)
        lengths = [len(answer) + place for answer in written]
        tokens = _choose(request, guidance, logits, states[-1], answers, lengths, rows).tokens
        answers = torch.cat([answers, tokens[:, None]], dim=1)
        drafts.append(tokens.tolist())
        states.append(reward.read([[token] for token in drafts[-1]])[:, -1])
    return [list(draft) for draft in zip(*drafts, strict=True)] or [[] for _ in rows], torch.stack(states, dim=1)


def _verify(
    request: Request,
    guidance: Guidance,
    policy: RaggedStream,
    states: torch.Tensor,
    pending: Sequence[int],
    drafts: Sequence[list[int]],
    written: Sequence[list[int]],
    rows: Sequence[int],
) -> Step:
    """What guided decoding writes after each token of the blocks: a step of B (1 + count) rows, row by row.

    The policy reads the blocks, [pending, *drafts] of each row, at once.
    """
    size = states.shape[1]
    hidden = policy.read([[token, *draft] for token, draft in zip(pending, drafts, strict=True)])  # (B, size, H)
    answers = _table([answer + draft for answer, draft in zip(written, drafts, strict=True)], hidden.device)
    known = answers.shape[1] - size + 1
    before = [pad(answers[:, : known + place], (size - 1 - place, 0), value=-1) for place in range(size)]
    lengths = [len(answer) + place for answer in written for place in range(size)]
    each = torch.arange(len(rows)).repeat_interleave(size)
    return _choose(
        request,
        guidance.rows(each),
        request.policy.head(hidden.flatten(0, 1)),
        states.flatten(0, 1),
        torch.stack(before, dim=1).flatten(0, 1),
        lengths,
        [rows[index] for index in each.tolist()],
    )


def _choose(
    request: Request,
    guidance: Guidance,
    logits: torch.Tensor,
    hidden: torch.Tensor,
    answers: torch.Tensor,
    lengths: Sequence[int],
    rows: Sequence[int],
) -> Step:
    """A step of guided decoding from (B, V) logits of the policy and (B, H) states of the backbone.

    The answers so far are (B, T), on the right, and have these lengths.
    """
    candidates, log_probs = select_candidates(processed(request, logits, rows, answers), request.candidates)
    model = guidance.model
    reference = model.reference.at_candidates(model.backbone.head, hidden, candidates, log_probs)
    rewards = guidance.rewards(hidden, candidates, reference)
    scores = guide(request, guidance, candidates, log_probs, rewards, answers)
    tokens = choose(request, candidates, scores, rows, lengths)
    return Step(list(rows), [True] * len(rows), tokens, candidates, log_probs, scores)


def _table(answers: Sequence[list[int]], device: torch.device) -> torch.Tensor:
    """Answers of any length as (B, T), on the right; -1 where there is no token."""
    length = max(map(len, answers))
    rows = [[-1] * (length - len(answer)) + answer for answer in answers]
    return torch.tensor(rows, dtype=torch.long, device=device).view(len(answers), length)


def _of_row(step: Step, index: int) -> Step:
    part = slice(index, index + 1)
    return Step(
        step.rows[part],
        [True],
        step.tokens[part],
        step.candidates[part],
        step.log_probs[part],
        step.scores[part],
    )
