"""Guided decoding written as slowly and plainly as possible: one row, no cache, the whole text read at every step."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pad_cli.equation import candidate_rewards, guided_scores, select_candidates, withhold_repeats
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_prompt
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.preference import Preference
from pad_cli.recipe import DecodingSettings
from pad_cli.records import as_messages


def last_state(model: LanguageModel, tokens: Sequence[int]) -> torch.Tensor:
    """(1, H) state after some tokens, read at once."""
    row = torch.tensor([tokens])
    return model.hidden_states(row, torch.ones_like(row))[:, -1]


@torch.inference_mode()
def slow_greedy(
    policy: LanguageModel,
    model: PersonalizedRewardModel,
    prompt: str,
    preference: Preference,
    settings: DecodingSettings,
) -> tuple[int, ...]:
    """Tokens of the guided greedy answer to one prompt."""
    context = encode_prompt(policy.tokenizer, as_messages(prompt))
    weights = model.weights([preference])
    guidance_weight = torch.tensor([settings.guidance_weight]) * model.calibration
    answer: list[int] = []
    for _ in range(settings.max_new_tokens):
        candidates, log_probs = select_candidates(
            policy.head(last_state(policy, [*context, *answer])), settings.candidates
        )
        hidden = last_state(model.backbone, [*context, *answer])
        rewards = candidate_rewards(model.backbone.head, hidden, model.shift(hidden, weights), candidates)
        history = torch.tensor([answer], dtype=torch.long)
        rewards = withhold_repeats(rewards, log_probs, candidates, history, settings.reward_ngram)
        best = guided_scores(log_probs, rewards, guidance_weight).argmax(-1)
        answer.append(int(candidates[0, best]))
        if answer[-1] in policy.end_tokens:
            break
    return tuple(answer)
