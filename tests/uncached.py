"""The authors' algorithm, written plainly: the yardstick for every path of decoding."""

from __future__ import annotations

import contextlib

import torch

from pad_cli.decoding.strategies import Guidance
from pad_cli.equation import guided_scores, rewards_of_all, select_candidates, withhold_repeats
from pad_cli.models.language_model import LanguageModel, same_model


@torch.inference_mode()
def score_uncached(
    policy: LanguageModel, guidance: Guidance, prompt: list[int], answer: list[int], *, count: int, reward_ngram: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score the candidates for the next token of one answer as the paper's authors do it.

    Both models read the whole text without a cache and give logits at every position, of which only the last are used
    (inference/PAD.py of zjuruizhechen/PAD). The answer is the first row of `guidance`. Returns candidates (1, C) and
    their guided scores (1, C) in nats, all normalisers included.
    """
    model, backbone = guidance.model, guidance.model.backbone
    shared = min(policy.vocabulary_size, backbone.vocabulary_size)
    logits = policy.head(_states(policy, prompt + answer))[-1:, :shared]

    def backbone_logits(states: torch.Tensor) -> torch.Tensor:
        return backbone.head(states)[-1:, :shared].to(logits.device)

    text = [*guidance.prompts[0], *answer]
    with contextlib.nullcontext() if model.adapter is None else model.adapter.on_rows_from(0):
        hidden = _states(backbone, text)
    shifted = hidden + model.shift(hidden, guidance.preference_weights[:1].expand(len(hidden), -1))
    if model.reference == "state":
        reference = backbone_logits(hidden[-1:])
    elif model.reference == "policy" or same_model(policy, backbone):
        reference = logits
    else:
        reference = backbone_logits(_states(backbone, text))
    candidates, log_probs = select_candidates(logits, count)
    rewards = rewards_of_all(backbone_logits(shifted.to(hidden.dtype)), reference).gather(1, candidates)
    history = torch.tensor([answer], dtype=torch.long, device=candidates.device)
    rewards = withhold_repeats(rewards, log_probs, candidates, history, reward_ngram)
    return candidates, guided_scores(log_probs, rewards, guidance.guidance_weight[:1])


def _states(model: LanguageModel, text: list[int]) -> torch.Tensor:
    """(T, H) states after every token of a text, read at once."""
    tokens = torch.tensor([text], device=model.device)
    return model.hidden_states(tokens, torch.ones_like(tokens))[0]
