"""The yardstick of `pad bench`: guided decoding as the paper's authors released it, re-written here and nothing more.

For every token, both models read the whole text so far again, one prompt at a time and without a cache, and give logits
at every position of it, though only the last are used (inference/PAD.py of zjuruizhechen/PAD).
"""

from __future__ import annotations

import contextlib

import torch

from pad_cli.decoding.readers import Guidance
from pad_cli.equation import guided_scores, rewards_of_all, select_candidates, withhold_repeats
from pad_cli.models.language_model import LanguageModel, same_model


@torch.inference_mode()
def score_uncached(
    policy: LanguageModel, guidance: Guidance, prompt: list[int], answer: list[int], *, count: int, reward_ngram: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score the candidates for the next token of one answer.

    Args:
        policy: the model to steer.
        guidance: the reward side; its first row is this answer's. Its vocabulary is the policy's.
        prompt: P token ids that the policy reads.
        answer: the T token ids written so far.
        count: C.
        reward_ngram: n-grams whose repetition earns no reward; 0 for none.

    Returns:
        candidates (1, C), and their guided scores (1, C) in nats with every normaliser of the reward included.
    """
    shared = min(policy.vocabulary_size, guidance.model.backbone.vocabulary_size)
    logits = policy.head(_states(policy, prompt + answer))[-1:, :shared]
    candidates, log_probs = select_candidates(logits, count)
    rewards = _rewards(policy, guidance, logits, answer).gather(1, candidates)
    history = torch.tensor([answer], dtype=torch.long, device=candidates.device)
    rewards = withhold_repeats(rewards, log_probs, candidates, history, reward_ngram)
    return candidates, guided_scores(log_probs, rewards, guidance.guidance_weight[:1])


def _rewards(policy: LanguageModel, guidance: Guidance, logits: torch.Tensor, answer: list[int]) -> torch.Tensor:
    """(1, V) rewards of every token, for the policy's (1, V) logits at the same place."""
    model, backbone, text = guidance.model, guidance.model.backbone, [*guidance.prompts[0], *answer]
    with contextlib.nullcontext() if model.adapter is None else model.adapter.on_rows_from(0):
        hidden = _states(backbone, text)
    shifted = hidden + model.shift(hidden, guidance.preference_weights[:1].expand(len(hidden), -1))
    personalised = _logits(backbone, shifted.to(hidden.dtype), logits)
    if model.reference == "state":
        reference = _logits(backbone, hidden[-1:], logits)
    elif model.reference == "policy" or same_model(policy, backbone):
        reference = logits
    else:
        reference = _logits(backbone, _states(backbone, text), logits)
    return rewards_of_all(personalised, reference)


def _logits(backbone: LanguageModel, states: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The backbone's logits (1, V) at the last of (T, H) states, over the tokens that other logits have."""
    return backbone.head(states)[-1:, : like.shape[-1]].to(like.device)


def _states(model: LanguageModel, text: list[int]) -> torch.Tensor:
    """(T, H) states after every token of a text, read at once."""
    tokens = torch.tensor([text], device=model.device)
    return model.hidden_states(tokens, torch.ones_like(tokens))[0]
