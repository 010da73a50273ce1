"""A user's weights from choices or replies, and how well they predict that user.

The weights are the mean of `posterior.py`'s sample. A penalised logistic regression with a Laplace interval was less
accurate and less certain at any number of choices; see docs/preferences.md for both.

A choice says of weights what the difference of two answers' rewards does, to first order at w = 0:

R(w)    = sum_t log softmax(E (h_t + sum_k w_k B_k A_k h_t))[y_t] - log softmax(E h_ref,t)[y_t]         nats
offset  = R(0)                                              0 without an adapter: then h_ref = h
slope_k = dR/dw_k = sum_t (E[y_t] - E_{v ~ softmax(E h_t)} E[v]) . B_k A_k h_t
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from pad_cli.equation import answer_sums
from pad_cli.errors import UsageError
from pad_cli.learning.choices import Choice, Comparison
from pad_cli.learning.posterior import Array, Basis, Posterior, basis_of, differences
from pad_cli.models.language_model import cut_to_context, room
from pad_cli.models.prompts import encode_answer, encode_prompt
from pad_cli.models.reward_model import PersonalizedRewardModel, RewardModel
from pad_cli.models.scoring import TokenSequence, answer_states, in_batches, targets_and_owners, token_log_probs
from pad_cli.system.progress import bar, note
from pad_cli.training.metrics import Share, share_of

_QUIET = 200  # answers up to which no progress is shown
_SMALL = 0.15  # share of the largest weight below which a weight is dropped if its interval includes 0
_LARGEST = 2.0  # the largest weight


class Features(NamedTuple):
    """N comparisons as linear functions of K weights: margin = offset + slopes . w, first answer less second, nats."""

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
def choice_features(model: RewardModel, comparisons: Sequence[Comparison]) -> Features:
    """Features of comparisons; every distinct answer is read once (UsageError: the reward model has no heads)."""
    model = with_heads(model)
    backbone, context, cut = model.backbone, model.backbone.context_length, 0
    numbers: dict[TokenSequence, int] = {}
    pairs = []
    for each in comparisons:
        prompt = tuple(encode_prompt(backbone.tokenizer, each.prompt, place=each.place))
        answers = [encode_answer(backbone.tokenizer, text) for text in (each.first, each.second)]
        end = prompt[-cut_to_context(context, len(prompt), max(map(len, answers))) :]
        starts = [tuple(answer[: room(context, len(end))]) for answer in answers]
        cut += len(end) < len(prompt) or any(len(a) < len(b) for a, b in zip(starts, answers, strict=True))
        pairs.append([numbers.setdefault((end, start), len(numbers)) for start in starts])
    if cut:
        note(f"Warning: {cut} comparisons are cut: '{backbone.name}' reads at most {context} tokens.")
    slopes = torch.zeros(len(numbers), len(model.principles), dtype=torch.float64)
    offsets = torch.zeros(len(numbers), dtype=torch.float64)

    title = "Reading answers" if len(numbers) > _QUIET else None
    read = functools.partial(_slopes_and_offsets, model)
    for rows, (slope, offset) in in_batches(list(numbers), read, backbone.device, title=title):
        slopes[rows], offsets[rows] = slope, offset
    first, second = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
    return Features((slopes[first] - slopes[second]).numpy(), (offsets[first] - offsets[second]).numpy())


def _slopes_and_offsets(
    model: PersonalizedRewardModel, answers: Sequence[TokenSequence], _: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """(S, K) slopes and (S,) offsets of S answers, float64, on the CPU."""
    backbone = model.backbone
    targets, owners = targets_and_owners(answers, backbone.device)
    hidden = answer_states(backbone, answers, model.adapter).float()
    with torch.enable_grad():  # an answer's reward depends on its own row of weights only: one pass gives all slopes
        weights = torch.zeros(len(answers), len(model.principles), device=hidden.device, requires_grad=True)
        shift = model.shift(hidden, weights[owners])
        log_probs = token_log_probs(hidden + shift.to(hidden.dtype), targets, backbone.head)
        (slopes,) = torch.autograd.grad(log_probs.sum(), weights)
    rewards = torch.zeros_like(log_probs.detach())
    if model.adapter is not None:
        plain = token_log_probs(answer_states(backbone, answers).float(), targets, backbone.head)
        rewards = log_probs.detach() - plain
    return slopes.double().cpu(), answer_sums(rewards.double().cpu(), owners.cpu(), len(answers))


@dataclass(frozen=True)
class Learned:
    """What one user's choices say."""

    weights: Mapping[str, float]  # in the reward model's order, the largest 2 or -2; 0 where there is no evidence
    intervals: Mapping[str, tuple[float, float]]  # 95 %
    accuracy: Share  # of choices that weights learned from the other choices predict
    choices: int  # of an answer
    ties: int  # choices of neither answer

    @property
    def summary(self) -> str:
        """The weights in words: "you prefer: concise +1.2, humorous +0.8; you avoid: formal -0.6"."""
        ranked = sorted(self.weights.items(), key=lambda item: -abs(item[1]))
        parts = []
        for words, sign in (("you prefer", 1), ("you avoid", -1)):
            names = [f"{name} {weight:+.1f}" for name, weight in ranked if weight * sign > 0]
            parts += [f"{words}: {', '.join(names)}"] if names else []
        return "; ".join(parts) or "nothing that these choices have in common"


def learn_user(model: RewardModel, choices: Sequence[Choice]) -> Learned:
    """Learn one user's weights (UsageError if the reward model has no preference heads)."""
    return learn_users(model, {"": choices})[""]


def learn_users(model: RewardModel, users: Mapping[str, Sequence[Choice]]) -> dict[str, Learned]:
    """As `learn_user` for each of many users, but every answer is read once and in large batches."""
    model = with_heads(model)
    features = choice_features(model, [choice.comparison for choices in users.values() for choice in choices])
    ends = np.cumsum([len(choices) for choices in users.values()])[:-1]
    parts = zip(np.split(features.slopes, ends), np.split(features.offsets, ends), strict=True)
    learned = {}
    with bar("Learning weights", total=len(users)) as progress:
        for (name, choices), part in zip(users.items(), parts, strict=True):
            replies = [choice.reply for choice in choices]
            learned[name] = learn_features(model.principles, replies, Features(*part), model.pair_moments)
            progress.advance()
    return learned


def learn_features(
    principles: Sequence[str],
    replies: Sequence[bool | None],
    features: Features,
    moments: Sequence[Sequence[float]] | None = None,
) -> Learned:
    """The weights of one user from the features of N comparisons and the replies to them.

    `moments` (K, K) are those of the reward model's pairs.
    """
    basis = basis_of(moments, features.slopes)
    seen = differences(*features, basis)
    posterior = Posterior(len(principles))
    for row, reply in enumerate(replies):
        posterior.add(seen.at(row), reply)
    return summarise(principles, posterior, basis)


def summarise(principles: Sequence[str], posterior: Posterior, basis: Basis) -> Learned:
    """What is learned from the replies of a posterior, at least one of which is not "neither".

    Choices determine a direction, but hardly how strongly to steer, so weights and intervals are scaled to a largest
    weight of 2. Small weights that may be 0 are 0.
    """
    mean, (low, high) = posterior.mean, posterior.interval()
    doubtful = (low <= 0) & (high >= 0) & (np.abs(mean) < _SMALL * np.abs(mean).max())
    weights, low, high = (each / basis.units for each in (np.where(doubtful, 0.0, mean), low, high))
    scale = _LARGEST / (np.abs(weights).max() or _LARGEST)
    decided = np.array([reply is not None for reply in posterior.replies])
    signs = np.array([1.0 if reply else -1.0 for reply in posterior.replies])
    predicted = 0.5 + 0.5 * np.sign(posterior.margins() * signs)[decided]
    ends = zip((low * scale).tolist(), (high * scale).tolist(), strict=True)
    return Learned(
        weights=dict(zip(principles, (weights * scale).tolist(), strict=True)),
        intervals=dict(zip(principles, ends, strict=True)),
        accuracy=share_of(torch.from_numpy(predicted)),
        choices=int(decided.sum()),
        ties=int((~decided).sum()),
    )
