"""Speculative decoding: a small reward model drafts, the large policy verifies a block of tokens in one forward.

The reward model's backbone stands in for the policy: its own logits plus the guidance propose a token, and the next,
and so on. The policy then reads the whole block at once, and the true guided scores at every place decide, with the
same random number that the draft had. Drafted tokens are kept up to the first that differs, and there the true one is
written. So the text is the one that `decode_steps` writes, greedy or sampled, up to rounding; only its price differs.

How many tokens n are drafted follows from a cost model. If a share p of drafts is right, n drafts bring
1 + p + ... + p^n tokens a row on average. They cost n + 1 forward passes of the backbone (it also reads the last token)
and one of the policy over rows * (n + 1) tokens:

    tokens per second (n) = (1 + p + ... + p^n) / ((n + 1) draft + verify(rows * (n + 1)))
    verify(tokens) = a + b * tokens

p, draft, a and b are estimated while decoding, from observations whose weight fades, since p changes with the text and
the cost with the number of rows. A plain step (n = 0) has a cost of its own: a matrix times one vector can be much
cheaper than times two. An optimistic prior takes over where nothing was measured lately, so that it is tried again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch.nn.functional import pad

from pad_cli.decoding.decode import Request, Step
from pad_cli.decoding.session import RollbackSession, can_roll_back
from pad_cli.decoding.strategies import Guidance
from pad_cli.errors import UsageError
from pad_cli.models.language_model import LanguageModel

_DRAFT_FROM = 8  # auto drafts when the policy has this many times the backbone's parameters
_LONGEST = 12  # tokens in one draft
_FIRST = 4  # tokens in the first draft, before any cost is known
_IDLE, _PROBE = 16, 2  # after so many blocks without a draft, one of this length
_FADE, _LATEST = 0.9, 64  # weight of the past after each observation; observations that have any


class _Mean:
    """A mean with fading weights, and with `prior_weight` more observations of the prior."""

    def __init__(self) -> None:
        self._sum, self.weight = 0.0, 0.0

    def value(self, prior: float = 0.0, prior_weight: float = 0.0) -> float:
        return (self._sum + prior_weight * prior) / (self.weight + prior_weight)

    def learn(self, total: float, count: float = 1.0) -> None:
        """Add observations with this sum; none fade the past as much as one does."""
        fade = _FADE ** max(count, 1.0)
        self._sum, self.weight = fade * self._sum + total, fade * self.weight + count


class BlockLength:
    """How many tokens to draft next: always `fixed`, or as the cost model says."""

    def __init__(self, fixed: int | None = None) -> None:
        self._fixed = fixed
        self._right = _Mean()  # share of drafts
        self._draft, self._plain = _Mean(), _Mean()  # seconds
        self._verified: deque[tuple[int, int, float]] = deque(maxlen=_LATEST)  # block, tokens and seconds
        self._blocks, self._idle = 0, 0

    def next(self, rows: int) -> int:
        if self._fixed is not None:
            return self._fixed
        if not self._verified:
            return _FIRST
        if self._idle >= _IDLE:
            return _PROBE
        line = self._verification()
        return max(range(_LONGEST + 1), key=lambda count: self._rate(count, line(rows * (count + 1))))

    def learn(self, rows: int, count: int, tried: int, right: int, draft_seconds: float, verify_seconds: float) -> None:
        """Add the observations of one block: `count` tokens were drafted in each of B rows.

        `tried` drafts are those up to each row's first wrong one, `right` those before it; `draft_seconds` is for one
        draft in all rows.
        """
        self._right.learn(right / rows, tried / rows)
        self._draft.learn(draft_seconds)
        if count:
            self._verified.append((self._blocks, rows * (count + 1), verify_seconds))
        self._plain.learn(0.0 if count else verify_seconds, 0 if count else 1)
        self._blocks, self._idle = self._blocks + 1, 0 if count else self._idle + 1

    def _verification(self) -> Callable[[int], float]:
        """Predicted seconds for a number of tokens, by least squares; the prior is b = a / 30."""
        blocks, tokens, seconds = np.array(self._verified).T
        weights = _FADE ** (blocks[-1] - blocks)
        middle, mean = np.average(tokens, weights=weights), np.average(seconds, weights=weights)
        variance = np.average((tokens - middle) ** 2, weights=weights)
        covariance = np.average((tokens - middle) * (seconds - mean), weights=weights)
        slope = (covariance + mean / (30 + middle)) / (variance + 1)  # the prior counts as a variance of one token
        slope = min(max(slope, 0.0), mean / middle)
        return lambda count: float(mean + slope * (count - middle))

    def _rate(self, count: int, verify: float) -> float:
        """Expected tokens per second."""
        right = self._right.value(prior=0.8, prior_weight=1.0)
        if not count:
            verify = self._plain.value(prior=0.6 * verify, prior_weight=0.2)
        return sum(right**power for power in range(count + 1)) / ((count + 1) * self._draft.value() + verify)


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
    ends = set(request.ends().tolist())
    while batch.rows:
        room = min(request.limits[row] - len(batch.answers[row]) for row in batch.rows)
        count = min(length.next(len(batch.rows)), room - 1)
        start = time.perf_counter()
        drafts, states = batch.draft(count)
        middle = time.perf_counter()
        step = batch.verify(drafts, states)
        verified = step.tokens.view(len(batch.rows), count + 1).tolist()
        end = time.perf_counter()
        going_on, excess, tried, right = [], [], 0, 0
        for index, row in enumerate(batch.rows):
            answer = batch.answers[row]
            for place, token in enumerate(verified[index]):
                answer.append(token)
                yield _of_row(step, index * (count + 1) + place)
                is_right = place < count and token == drafts[index][place]
                tried += place < count
                right += is_right
                stopped = request.stopped is not None and request.stopped(row)
                if token in ends or len(answer) == request.limits[row] or stopped:
                    break
                if not is_right:
                    going_on.append(index)
                    excess.append(count - place)
                    break
        length.learn(len(batch.rows), count, tried, right, (middle - start) / (count + 1), end - middle)
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
        for place in range(count):
            logits = self._guidance.model.backbone.head(states[-1]).to(device)
            lengths = [len(answer) + place for answer in written]
            tokens = self._step(self._guidance, logits, states[-1], answers, lengths, self.rows).tokens
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
            self._guidance.rows(repeated),
            self._request.policy.head(hidden.flatten(0, 1)),
            states.flatten(0, 1),
            torch.stack(before, dim=1).flatten(0, 1),
            [len(answer) + place for answer in written for place in range(size)],
            [row for row in self.rows for _ in range(size)],
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
        self,
        guidance: Guidance,
        logits: torch.Tensor,  # (B, V) of the policy
        hidden: torch.Tensor,  # (B, H) of the backbone
        answers: torch.Tensor,  # (B, T) so far, on the right
        lengths: Sequence[int],
        rows: Sequence[int],
    ) -> Step:
        request = self._request
        candidates, log_probs = request.select(logits, rows, answers)
        model = guidance.model
        reference = model.reference.at_candidates(model.backbone.head, hidden, candidates, log_probs)
        rewards = guidance.rewards(hidden, candidates, reference)
        scores = request.score(guidance, candidates, log_probs, rewards, answers)
        tokens = request.sampler.choose(candidates, scores, rows, lengths)
        return Step(list(rows), [True] * len(rows), tokens, candidates, log_probs, scores)


def _table(answers: Sequence[list[int]], device: torch.device) -> torch.Tensor:
    """Answers of any length as (B, T), on the right; -1 where there is no token."""
    length = max(map(len, answers))
    rows = [[-1] * (length - len(answer)) + answer for answer in answers]
    return torch.tensor(rows, dtype=torch.long, device=device).view(len(answers), length)


def _of_row(step: Step, index: int) -> Step:
    tensors = (step.tokens, step.candidates, step.log_probs, step.scores)
    return Step([step.rows[index]], [True], *(tensor[index : index + 1] for tensor in tensors))
