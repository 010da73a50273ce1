"""A user's weights from choices or replies, how well they predict that user, and whether more would help.

The weights are the mean of `posterior.py`'s sample. A penalised logistic regression with a Laplace interval was less
accurate and less certain at any number of choices; see docs/preferences.md for both.

A choice says of weights what the difference of two answers' rewards does, to first order at w = 0:

R(w)    = sum_t log softmax(E (h_t + sum_k w_k B_k A_k h_t))[y_t] - log softmax(E h_ref,t)[y_t]         nats
offset  = R(0)                                              0 without an adapter: then h_ref = h
slope_k = dR/dw_k = sum_t g_t . B_k A_k h_t,   g_t = E[y_t] - E_{v ~ softmax(E h_t)} E[v]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from pad_cli.equation import answer_sums
from pad_cli.errors import UsageError
from pad_cli.learning.choices import Choice, Choices
from pad_cli.learning.posterior import Array, Basis, Differences, Posterior, basis_of, differences
from pad_cli.models.language_model import cut_to_context, room
from pad_cli.models.prompts import encode_answer, encode_prompt
from pad_cli.models.reward_model import PersonalizedRewardModel, RewardModel
from pad_cli.models.scoring import TokenSequence, answer_states, in_batches, targets_and_owners, token_log_probs
from pad_cli.system.progress import bar, note
from pad_cli.training.metrics import Share, share_of

_QUIET = 200  # answers up to which no progress is shown
_SMALL = 0.15  # share of the largest weight below which a weight is dropped if its interval includes 0
_LARGEST = 2.0  # the largest weight
_ENOUGH = 0.9  # certainty from which more choices would change little


@dataclass(frozen=True)
class Features:
    """N choices as linear functions of K weights: margin = offset + slopes . w, chosen less rejected, nats."""

    slopes: Array  # (N, K)
    offsets: Array  # (N,)


def with_heads(model: RewardModel | None) -> PersonalizedRewardModel:
    """The reward model, if it has preference heads (UsageError)."""
    if not isinstance(model, PersonalizedRewardModel):
        raise UsageError(
            "A reward model that reads preferences in its prompt has no heads, so no weights that could be learned.",
            "Use one with preference heads, as pad train-rm makes them.",
        )
    return model


@torch.no_grad()
def choice_features(model: RewardModel, choices: Sequence[Choice]) -> Features:
    """Features of choices; every distinct answer is read once (UsageError: the reward model has no heads)."""
    model = with_heads(model)
    backbone, context, cut = model.backbone, model.backbone.context_length, 0
    numbers: dict[TokenSequence, int] = {}
    pairs = []
    for choice in choices:
        prompt = tuple(encode_prompt(backbone.tokenizer, choice.prompt, place=choice.place))
        answers = [encode_answer(backbone.tokenizer, text) for text in (choice.chosen, choice.rejected)]
        end = prompt[-cut_to_context(context, len(prompt), max(map(len, answers))) :]
        starts = [tuple(answer[: room(context, len(end))]) for answer in answers]
        cut += len(end) < len(prompt) or any(len(a) < len(b) for a, b in zip(starts, answers, strict=True))
        pairs.append([numbers.setdefault((end, start), len(numbers)) for start in starts])
    if cut:
        note(f"Warning: {cut} choices are cut: '{backbone.name}' reads at most {context} tokens.")
    slopes = torch.zeros(len(numbers), len(model.principles), dtype=torch.float64)
    offsets = torch.zeros(len(numbers), dtype=torch.float64)

    def read(batch: Sequence[TokenSequence], _: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        return _slopes_and_offsets(model, batch)

    title = "Reading answers" if len(numbers) > _QUIET else None
    for rows, (slope, offset) in in_batches(list(numbers), read, backbone.device, title=title):
        slopes[rows], offsets[rows] = slope, offset
    chosen, rejected = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
    return Features((slopes[chosen] - slopes[rejected]).numpy(), (offsets[chosen] - offsets[rejected]).numpy())


def _slopes_and_offsets(
    model: PersonalizedRewardModel, answers: Sequence[TokenSequence]
) -> tuple[torch.Tensor, torch.Tensor]:
    """(S, K) slopes and (S,) offsets of S answers, float64, on the CPU."""
    backbone, heads = model.backbone, model.heads
    targets, owners = targets_and_owners(answers, backbone.device)
    hidden = answer_states(backbone, answers, model.adapter).float()
    # The shift of head k enters R only through the state, so dR/dw_k = dR/dh_t . B_k A_k h_t (chain rule): one backward
    # pass to the states gives the slopes of all K heads, and of a token's V logits only the H numbers g_t are kept.
    with torch.enable_grad():
        states = hidden.requires_grad_()
        log_probs = token_log_probs(states, targets, backbone.head)
        (g,) = torch.autograd.grad(log_probs.sum(), states)
    count, rank, _ = heads.down.shape
    ones = torch.ones(len(owners), count, device=hidden.device)
    projected = (g.to(heads.up.dtype) @ heads.up_rows.T).view(-1, count, rank)  # (T, K, r): g_t . B_k
    slopes = (heads.mixed(hidden.detach(), ones) * projected).sum(-1)
    rewards = torch.zeros_like(log_probs.detach())
    if model.adapter is not None:
        plain = token_log_probs(answer_states(backbone, answers).float(), targets, backbone.head)
        rewards = log_probs.detach() - plain
    owners = owners.cpu()
    slopes, rewards = slopes.detach().double().cpu(), rewards.double().cpu()
    return answer_sums(slopes, owners, len(answers)), answer_sums(rewards, owners, len(answers))


class Reply(NamedTuple):
    """One answered comparison."""

    seen: Differences  # N = 1, first answer less second
    first: bool | None  # was the first one preferred? None for neither


@dataclass(frozen=True)
class Learned:
    """What one user's choices say."""

    weights: Mapping[str, float]  # in the reward model's order, the largest 2 or -2; 0 where there is no evidence
    intervals: Mapping[str, tuple[float, float]]  # 95 %
    accuracy: Share  # of choices that weights learned from the other choices predict
    certainty: float  # mean probability, over choices, that those weights are right about which answer is better
    choices: int  # used
    ties: int  # choices in which neither answer was better
    contradictions: int = 0  # choices left out because they contradict each other

    @property
    def summary(self) -> str:
        """The weights in words: "you prefer: concise +1.2, humorous +0.8; you avoid: formal -0.6"."""
        ranked = sorted(self.weights.items(), key=lambda item: -abs(item[1]))
        parts = []
        for words, sign in (("you prefer", 1), ("you avoid", -1)):
            names = [f"{name} {weight:+.1f}" for name, weight in ranked if weight * sign > 0]
            parts += [f"{words}: {', '.join(names)}"] if names else []
        return "; ".join(parts) or "nothing that these choices have in common"

    @property
    def advice(self) -> str:
        """Would more choices help?"""
        certain = f"The profile is {self.certainty:.0%} certain of its predictions"
        if not any(self.weights.values()) or self.accuracy.low <= 0.5:
            more = "give more choices, between answers that differ in what you care for"
            return f"{certain}, and its accuracy may be chance: {more}."
        if self.certainty < _ENOUGH:
            return f"{certain}: more choices would help; twice as many are worth it."
        return f"{certain}: more choices would change little."


def learn_user(model: RewardModel, choices: Choices) -> Learned:
    """Learn one user's weights (UsageError if the reward model has no preference heads)."""
    return learn_users(model, {"": choices})[""]


def learn_users(model: RewardModel, users: Mapping[str, Choices]) -> dict[str, Learned]:
    """As `learn_user` for each of many users, but every answer is read once and in large batches."""
    model = with_heads(model)
    features = choice_features(model, [choice for user in users.values() for choice in user.choices])
    ends = np.cumsum([len(user.choices) for user in users.values()])[:-1]
    parts = zip(np.split(features.slopes, ends), np.split(features.offsets, ends), strict=True)
    learned = {}
    with bar("Learning weights", total=len(users)) as progress:
        for (name, choices), part in zip(users.items(), parts, strict=True):
            learned[name] = learn_features(model.principles, choices, Features(*part), model.pair_moments)
            progress.advance()
    return learned


def learn_features(
    principles: Sequence[str], choices: Choices, features: Features, moments: Sequence[Sequence[float]] | None = None
) -> Learned:
    """The weights of one user from the features of choices; `moments` (K, K) are those of the reward model's pairs."""
    basis = basis_of(moments, features.slopes)
    seen = differences(features.slopes, basis, features.offsets)
    replies = [Reply(seen.at(row), True) for row in range(len(seen.means))]
    learned = learn_replies(principles, replies, posterior_of(replies, len(principles)), basis)
    return replace(learned, ties=choices.ties, contradictions=choices.contradictions)


def posterior_of(replies: Sequence[Reply], principles: int) -> Posterior:
    """What replies say of the weights of K principles."""
    posterior = Posterior(principles)
    for reply in replies:
        posterior.add(*reply)
    return posterior


def head_weights(posterior: Posterior, basis: Basis) -> Array:
    """(K,) weights of the reward model's heads, the largest 2 or -2, without small ones that may be 0."""
    mean, (low, high) = posterior.mean, posterior.interval()
    size = np.abs(mean)
    weights = basis.head_weights(np.where((low <= 0) & (high >= 0) & (size < _SMALL * size.max()), 0.0, mean))
    return weights * _scale(weights)


def learn_replies(principles: Sequence[str], replies: Sequence[Reply], posterior: Posterior, basis: Basis) -> Learned:
    """What is learned from replies, at least one of which is not "neither"; `posterior` is that of these replies."""
    scale = _scale(basis.head_weights(posterior.mean))
    low, high = (basis.head_weights(end) * scale for end in posterior.interval())
    decided = np.array([reply.first is not None for reply in replies])
    signs = np.array([1.0 if reply.first else -1.0 for reply in replies])
    margins, certainty = posterior.margins()
    predicted = 0.5 + 0.5 * np.sign(margins * signs)[decided]
    return Learned(
        weights=dict(zip(principles, head_weights(posterior, basis).tolist(), strict=True)),
        intervals=dict(zip(principles, zip(low.tolist(), high.tolist(), strict=True), strict=True)),
        accuracy=share_of(torch.from_numpy(predicted)),
        certainty=float(certainty[decided].mean()),
        choices=int(decided.sum()),
        ties=int((~decided).sum()),
    )


def _scale(weights: Array) -> float:
    """The factor to the size that steers: choices determine a direction, but hardly how strongly to steer."""
    largest = float(np.abs(weights).max())
    return _LARGEST / largest if largest > 0 else 1.0
