"""The yardstick of `pad bench`: guided decoding as the paper's authors released it, re-written here and nothing more.

For every token, both models read the whole text so far again, one prompt at a time and without a cache. Each head is
applied at the last position alone, so this costs no more than the authors' own program does.
"""

from __future__ import annotations

import torch

from pad_cli.decoding.guidance import guided_scores, select_candidates, withhold_repeats
from pad_cli.decoding.loop import Guidance
from pad_cli.models.language_model import LanguageModel


@torch.inference_mode()
def score_uncached(
    policy: LanguageModel, guidance: Guidance, prompt: list[int], answer: list[int], *, count: int, reward_ngram: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score the candidates for the next token of one answer.

    Args:
        policy: the model to steer.
        guidance: the reward side; its first row is this answer's.
        prompt: P token ids, the same in both models.
        answer: the T token ids written so far.
        count: C.
        reward_ngram: n-grams whose repetition earns no reward; 0 for none.

    Returns:
        candidates (1, C), and their guided scores (1, C) in nats with every normaliser of the reward included.
    """
    model, backbone = guidance.model, guidance.model.backbone
    candidates, log_probs = select_candidates(policy.head(_last_state(policy, prompt + answer)), count)
    hidden = _last_state(backbone, prompt + answer)
    shifted = hidden + model.shift(hidden, guidance.preference_weights[:1]).to(hidden.dtype)
    personalised = backbone.head(shifted).float().log_softmax(-1)
    reference = backbone.head(hidden).float().log_softmax(-1)
    rewards = (personalised - reference).gather(1, candidates.to(hidden.device)).to(log_probs.device)
    history = torch.tensor([answer], dtype=torch.long, device=candidates.device)
    rewards = withhold_repeats(rewards, log_probs, candidates, history, reward_ngram)
    return candidates, guided_scores(log_probs, rewards, guidance.guidance_weight[:1])


def _last_state(model: LanguageModel, text: list[int]) -> torch.Tensor:
    tokens = torch.tensor([text], device=model.device)
    return model.hidden_states(tokens, torch.ones_like(tokens))[:, -1]
