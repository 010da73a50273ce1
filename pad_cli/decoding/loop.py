"""The decoding loop: token ids in, token ids out, one KV cache a model; it knows nothing of text.

Finished rows leave the batch, so they stop costing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from transformers import LogitsProcessorList

from pad_cli.decoding.bridged import BridgedReader
from pad_cli.decoding.readers import FusedReader, Guidance, PairedReader, PolicyReader, SeparateReader
from pad_cli.decoding.sampling import Chooser
from pad_cli.equation import guided_scores, select_candidates, withhold_repeats
from pad_cli.models.language_model import LanguageModel, room

_READERS = {"fused": FusedReader, "paired": PairedReader, "separate": SeparateReader, "bridged": BridgedReader}
_COMPACT_BELOW = 0.75  # drop finished rows once fewer than this share of the batch is running


@dataclass(frozen=True)
class Request:
    """A batch of prompts, and how to answer them.

    Attributes:
        policy: the frozen model to steer.
        prompts: B prompts in the policy's tokens.
        guidance: the reward side; None is plain decoding among the top candidates.
        candidates: C.
        reward_ngram: n-grams whose repetition earns no reward; 0 for none.
        max_new_tokens: longest answer; see `limits`.
        chooser: picks among candidates.
        processors: act on the policy's logits first, for example transformers' repetition controls.
        ignore_eos: go on after an end of sequence, to `max_new_tokens` (for measuring).
        stopped: asked after each token, by the row's number, whether its answer is to end there.
    """

    policy: LanguageModel
    prompts: Sequence[list[int]]
    guidance: Guidance | None
    candidates: int
    reward_ngram: int
    max_new_tokens: int
    chooser: Chooser
    processors: LogitsProcessorList = field(default_factory=LogitsProcessorList)
    ignore_eos: bool = False
    stopped: Callable[[int], bool] | None = None

    @property
    def reads(self) -> list[tuple[LanguageModel, Sequence[list[int]]]]:
        """The models that read the answers in the policy's tokens, each with its prompts."""
        if self.guidance is None or self.guidance.path == "bridged":
            return [(self.policy, self.prompts)]
        return [(self.policy, self.prompts), (self.guidance.model.backbone, self.guidance.prompts)]

    @functools.cached_property
    def limits(self) -> list[int]:
        """Longest answer of each row: `max_new_tokens`, or less where a model cannot read that much behind its prompt.

        A backbone with another vocabulary reads other tokens; see `BridgedReader.full`.
        """
        lengths = [[room(model.context_length, len(prompt)) for prompt in prompts] for model, prompts in self.reads]
        return [min([self.max_new_tokens, *(n for n in row if n is not None)]) for row in zip(*lengths, strict=True)]

    @property
    def shared_tokens(self) -> int:
        """Token ids below this exist in both models: their unembeddings may be padded to different sizes."""
        size = self.policy.vocabulary_size
        if self.guidance is None or self.guidance.path == "bridged":
            return size
        return min(size, self.guidance.model.backbone.vocabulary_size)

    def reader(self) -> PolicyReader:
        """The models, having read the prompts."""
        if self.guidance is None:
            return PolicyReader(self.policy, self.prompts)
        return _READERS[self.guidance.path](self.policy, self.prompts, self.guidance)

    def ends(self) -> torch.Tensor:
        """The tokens that end an answer: (E,)."""
        tokens = [] if self.ignore_eos else sorted(self.policy.end_tokens)
        return torch.tensor(tokens, dtype=torch.long, device=self.policy.device)


@dataclass(frozen=True)
class Step:
    """One step of the loop, for the B rows that are in the batch.

    Attributes:
        rows: B numbers: which prompt each row answers.
        running: B flags: whether the row was still unfinished, so that its token counts.
        tokens: (B,) the tokens chosen.
        candidates: (B, C) token ids, the policy's likeliest first.
        log_probs: (B, C) of the candidates under the policy.
        scores: (B, C) what was chosen by: equal to `log_probs` without guidance.
    """

    rows: list[int]
    running: list[bool]
    tokens: torch.Tensor
    candidates: torch.Tensor
    log_probs: torch.Tensor
    scores: torch.Tensor


def collect(count: int, steps: Iterator[Step]) -> list[list[int]]:
    """The answers that steps add up to: `count` lists of new tokens; a finished one ends with its end of sequence."""
    answers: list[list[int]] = [[] for _ in range(count)]
    for step in steps:
        for row, token, runs in zip(step.rows, step.tokens.tolist(), step.running, strict=True):
            if runs:
                answers[row].append(token)
    return answers


@torch.inference_mode()
def decode_steps(request: Request) -> Iterator[Step]:
    """Answer a batch of prompts, one step for each new token."""
    guidance, rows = request.guidance, list(range(len(request.prompts)))
    ends = request.ends()
    reader = request.reader()
    answers = torch.zeros(len(rows), 0, dtype=torch.long, device=request.policy.device)
    running = torch.ones(len(rows), dtype=torch.bool, device=request.policy.device)
    for position in range(request.max_new_tokens):
        logits = processed(request, request.policy.head(reader.hidden), rows, answers)  # (B, V)
        candidates, log_probs = select_candidates(logits, request.candidates)  # (B, C)
        rewards = reader.rewards(candidates, log_probs)
        if guidance is None:
            scores = log_probs + rewards
        else:
            scores = guide(request, guidance, candidates, log_probs, rewards, answers)
        tokens = choose(request, candidates, scores, rows, [position] * len(rows))  # (B,)
        yield Step(rows, running.tolist(), tokens, candidates, log_probs, scores)
        running = running & ~torch.isin(tokens, ends)
        if request.stopped is not None:
            running &= torch.tensor([not request.stopped(row) for row in rows], device=running.device)
        full = [request.limits[row] <= position + 1 for row in rows]
        full = [one or other for one, other in zip(full, reader.full(tokens), strict=True)]
        running &= ~torch.tensor(full, device=running.device)
        answers = torch.cat([answers, tokens[:, None]], dim=1)
        left = int(running.sum())
        if left == 0:
            break
        if left < _COMPACT_BELOW * len(rows) or any(full):  # a full row cannot read on, though it has ended
            kept = running.nonzero()[:, 0]
            rows = [rows[index] for index in kept.tolist()]
            tokens, answers, running = tokens[kept], answers[kept], running[kept]
            guidance = guidance and guidance.rows(kept)
            reader.keep(kept)
        reader.push(tokens)


def guide(
    request: Request,
    guidance: Guidance,
    candidates: torch.Tensor,
    log_probs: torch.Tensor,
    rewards: torch.Tensor,
    answers: torch.Tensor,
) -> torch.Tensor:
    """Guided scores (B, C) of candidates; `answers` (B, T) is what was written, negative where a row has no token."""
    rewards = rewards.to(log_probs.device)
    rewards = withhold_repeats(rewards, log_probs, candidates, answers, request.reward_ngram)
    return guided_scores(log_probs, rewards, guidance.guidance_weight)


def choose(
    request: Request,
    candidates: torch.Tensor,
    scores: torch.Tensor,
    rows: Sequence[int],
    positions: Sequence[int],
) -> torch.Tensor:
    """The tokens (B,) that the chooser takes of (B, C) candidates.

    It draws from them in the order of their numbers: so two models, or two roundings, that rank candidates differently
    still draw the same from similar scores.
    """
    if request.chooser.greedy:
        chosen = request.chooser.choose(scores, rows, positions)[:, None]
    else:
        order = candidates.argsort(-1)
        chosen = order.gather(1, request.chooser.choose(scores.gather(1, order), rows, positions)[:, None])
    return candidates.gather(1, chosen)[:, 0]


def processed(request: Request, logits: torch.Tensor, rows: Sequence[int], answers: torch.Tensor) -> torch.Tensor:
    """The policy's logits (B, V) of shared tokens after its processors, which see each row alone, without padding."""
    logits = logits[:, : request.shared_tokens]
    if not request.processors:
        return logits
    each = []
    for row, answer, its_logits in zip(rows, answers, logits, strict=True):
        tokens = torch.cat([answer.new_tensor(request.prompts[row]), answer[answer >= 0]])
        each.append(request.processors(tokens[None], its_logits[None]))
    return torch.cat(each)
