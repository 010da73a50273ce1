"""Speculative decoding: a small reward model drafts, the large policy verifies a block of tokens in one forward.

The reward model's backbone stands in for the policy: its own logits plus the guidance propose a token, and the next,
and so on. The policy then reads the whole block at once, and the true guided scores at every place decide, with the
same random number that the draft had. Drafted tokens are kept up to the first that differs, and there the true one is
written. So the text is the one that `decode_steps` writes, greedy or sampled, up to rounding; only its price differs.

A draft is kept if it and those before it are right, so the n-th of a block is kept with probability p^n, where p is the
share of drafts that are right. A block is as long as this probability is worth a draft. p is estimated while decoding,
from drafts whose weight fades, since it changes with the text. An optimistic prior takes over when nothing was drafted
lately, so that drafting is tried again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch.nn.functional import pad

from pad_cli.decoding.decode import Request, Step
from pad_cli.decoding.session import RollbackSession, can_roll_back
from pad_cli.decoding.strategies import Guidance
from pad_cli.errors import UsageError
from pad_cli.models.language_model import LanguageModel

_DRAFT_FROM = 8  # auto drafts when the policy has this many times the backbone's parameters
_LONGEST = 12  # tokens in one block of drafts
_WORTH = 0.4  # probability of being kept from which a draft is worth its cost
_PRIOR, _PRIOR_DRAFTS = 0.8, 0.5  # expected share of right drafts, and of how many drafts it has the weight
_FADE = 0.9  # weight of earlier drafts after each block


class BlockLength:
    """How many tokens to draft next: always `fixed`, or as the share of right drafts says."""

    def __init__(self, fixed: int | None = None) -> None:
        self._fixed = fixed
        self._tried = self._right = 0.0  # drafts, with fading weights

    def next(self) -> int:
        if self._fixed is not None:
            return self._fixed
        share = (self._right + _PRIOR * _PRIOR_DRAFTS) / (self._tried + _PRIOR_DRAFTS)
        return min(_LONGEST, int(math.log(_WORTH) / math.log(share)))

    def learn(self, tried: int, right: int) -> None:
        """Add the drafts of one block: those up to each row's first wrong one, and those of them that are right."""
        self._tried = _FADE * self._tried + tried
        self._right = _FADE * self._right + right


def can_speculate(policy: LanguageModel, guidance: Guidance | None, rows: int) -> bool:
    """Is there a second model that can draft, and can both models roll tokens back?"""
    if guidance is None or guidance.path != "separate" or guidance.model.reference == "backbone":
        return False
    return can_roll_back(policy, rows) and can_roll_back(guidance.model.backbone, rows)


def draft_length(request: Request, draft_tokens: int | Literal["auto"]) -> BlockLength | None:
    """How many tokens the reward model drafts (`decoding.draft_tokens`), for `speculate_steps`; None: it does not.

    Raises:
        UsageError: a number is set, but these models cannot speculate on this path, or not so many rows at once.
    """
    if request.guidance is None or draft_tokens == 0:
        return None
    possible = can_speculate(request.policy, request.guidance, len(request.prompts))
    if draft_tokens == "auto":
        policy, backbone = request.policy.model, request.guidance.model.backbone.model
        pays = policy.num_parameters() >= _DRAFT_FROM * backbone.num_parameters()
        return BlockLength() if possible and pays else None
    if not possible:
        raise UsageError(
            "decoding.draft_tokens: the reward model cannot draft here.",
            "It needs path separate, no adapter, and batch_size 1 where attention has a sliding window. Use: auto",
        )
    return BlockLength(draft_tokens)


@torch.inference_mode()
def speculate_steps(request: Request, length: BlockLength) -> Iterator[Step]:
    """Answer a batch of prompts as `decode_steps` does; each step holds one token of one row."""
    batch = _Batch(request)
    while batch.rows:
        room = min(request.limits[row] - len(batch.answers[row]) for row in batch.rows)
        count = min(length.next(), room - 1)
        drafts, states = batch.draft(count)
        step = batch.verify(drafts, states)
        verified = step.tokens.view(len(batch.rows), count + 1).tolist()
        going_on, excess, tried, right = [], [], 0, 0
        for index, row in enumerate(batch.rows):
            answer = batch.answers[row]
            for place, token in enumerate(verified[index]):
                answer.append(token)
                yield _of_row(step, index * (count + 1) + place)
                is_right = place < count and token == drafts[index][place]
                tried += place < count
                right += is_right
                if request.ends(row, token, len(answer)):
                    break
                if not is_right:
                    going_on.append(index)
                    excess.append(count - place)
                    break
        length.learn(tried, right)
        batch.advance(going_on, excess)


class _Batch:
    """The rows of a batch that are not finished; both models have read all but the last token of each."""

    def __init__(self, request: Request) -> None:
        assert request.guidance is not None
        self._request, self._guidance = request, request.guidance
        self.rows = list(range(len(request.prompts)))
        self.answers: list[list[int]] = [[] for _ in self.rows]  # of all rows, finished ones too
        self._policy = RollbackSession(request.policy, [prompt[:-1] for prompt in request.prompts])
        reward_prompts = self._guidance.prompts
        self._reward = RollbackSession(self._guidance.model.backbone, [prompt[:-1] for prompt in reward_prompts])
        self._last = [prompt[-1] for prompt in request.prompts]
        self._reward_last = [prompt[-1] for prompt in reward_prompts]

    def draft(self, count: int) -> tuple[list[list[int]], torch.Tensor]:
        """Propose N tokens for every row; also the backbone's states (B, N + 1, H) before each and after all."""
        device, written = self._request.policy.device, [self.answers[row] for row in self.rows]
        states = [self._reward.read([[token] for token in self._reward_last])[:, -1]]
        answers, drafts = _table(written, device), []
        for _ in range(count):
            logits = self._guidance.model.backbone.head(states[-1]).to(device)
            tokens = self._step(self.rows, logits, answers, self._guidance, states[-1]).tokens
            answers = torch.cat([answers, tokens[:, None]], dim=1)
            drafts.append(tokens.tolist())
            states.append(self._reward.read([[token] for token in drafts[-1]])[:, -1])
        return [list(row) for row in zip(*drafts, strict=True)] or [[] for _ in self.rows], torch.stack(states, dim=1)

    def verify(self, drafts: Sequence[list[int]], states: torch.Tensor) -> Step:
        """What guided decoding writes after each token of the blocks: a step of B (1 + N) rows, row by row.

        The policy reads the blocks, [last token, *draft] of each row, at once.
        """
        size, written = states.shape[1], [self.answers[row] for row in self.rows]
        blocks = [[token, *draft] for token, draft in zip(self._last, drafts, strict=True)]
        hidden = self._policy.read(blocks)  # (B, size, H)
        answers = _table([answer + draft for answer, draft in zip(written, drafts, strict=True)], hidden.device)
        known = answers.shape[1] - size + 1
        before = [pad(answers[:, : known + place], (size - 1 - place, 0), value=-1) for place in range(size)]
        repeated = torch.arange(len(self.rows)).repeat_interleave(size)
        return self._step(
            [row for row in self.rows for _ in range(size)],
            self._request.policy.head(hidden.flatten(0, 1)),
            torch.stack(before, dim=1).flatten(0, 1),
            self._guidance.rows(repeated),
            states.flatten(0, 1),
        )

    def advance(self, going_on: list[int], excess: list[int]) -> None:
        """Continue with the given rows only, each without its last drafts, which were wrong."""
        if len(going_on) < len(self.rows):
            self.rows = [self.rows[index] for index in going_on]
            if not going_on:
                return
            self._policy.keep(going_on)
            self._reward.keep(going_on)
            self._guidance = self._guidance.rows(torch.tensor(going_on))
        self._policy.rollback(excess)
        self._reward.rollback(excess)
        self._last = self._reward_last = [self.answers[row][-1] for row in self.rows]

    def _step(
        self, rows: list[int], logits: torch.Tensor, answers: torch.Tensor, guidance: Guidance, hidden: torch.Tensor
    ) -> Step:
        """As `Request.step`, with rewards from (B, H) states of the backbone."""
        model = guidance.model

        def rewards(candidates: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
            reference = model.reference.at_candidates(model.backbone.head, hidden, candidates, log_probs)
            return guidance.rewards(hidden, candidates, reference)

        return self._request.step(rows, logits, answers, guidance, rewards)


def _table(answers: Sequence[list[int]], device: torch.device) -> torch.Tensor:
    """Answers of any length as (B, T), on the right; -1 where there is no token."""
    length = max(map(len, answers))
    rows = [[-1] * (length - len(answer)) + answer for answer in answers]
    return torch.tensor(rows, dtype=torch.long, device=device).view(len(answers), length)


def _of_row(step: Step, index: int) -> Step:
    tensors = (step.tokens, step.candidates, step.log_probs, step.scores)
    return Step([step.rows[index]], *(tensor[index : index + 1] for tensor in tensors))
