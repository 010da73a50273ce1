"""`PreferenceLogitsProcessor`: PAD inside anybody's `model.generate(...)`.

    processor = PreferenceLogitsProcessor(reward_model, [reward_model.preference(["humorous"])], guidance_weight=1.5)
    model.generate(**inputs, logits_processor=[processor])

The reward model's backbone reads the text in a session of its own; sampling, streaming and stopping stay transformers'
business: `eos_token_id=sorted(engine.policy.end_tokens)` stops where `PadEngine` does. It costs a second forward pass:
where the policy is the backbone, `PadEngine` is cheaper.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import LogitsProcessor

from pad_cli.decoding.strategies import Guidance, PairedStrategy
from pad_cli.equation import guided_scores, plausible, select_candidates, withhold_repeats
from pad_cli.errors import UsageError
from pad_cli.models.reward_model import RewardModel
from pad_cli.preference import Preference


class PreferenceLogitsProcessor(LogitsProcessor):  # type: ignore[misc]  # mypy does not follow transformers
    """Guided scores for the policy's candidates, minus infinity for every other token.

    Reusable: a call whose tokens do not continue the last call's starts anew (a new prompt, beams that were reordered).

    The reward model shares its vocabulary with the model that generates; there is one preference for all rows, or one a
    row; `candidates`, `reward_ngram` and `plausibility` are as in a recipe's `decoding`.

    Raises:
        UsageError: the reward model reads the preference in its prompt; or, in a call, there are neither one nor B
            preferences.
    """

    def __init__(
        self,
        reward_model: RewardModel,
        preferences: Sequence[Preference],
        guidance_weight: float = 1.0,
        candidates: int = 10,
        reward_ngram: int = 2,
        plausibility: float = 0.0,
    ) -> None:
        if reward_model.reference == "policy":
            raise UsageError(
                "This reward model reads the preference in its prompt, which a logits processor cannot change.",
                "Use PadEngine.generate.",
            )
        self._model = reward_model
        self._weights = reward_model.weights(preferences)  # (1, K) or (B, K)
        steered = [guidance_weight if preference else 0.0 for preference in preferences]
        self._guidance_weight = torch.tensor(steered) * reward_model.calibration  # (1,) or (B,)
        self._candidates = candidates
        self._reward_ngram = reward_ngram
        self._plausibility = plausibility
        self._reward: PairedStrategy | None = None
        self._read: torch.Tensor | None = None
        self._prompt_length = 0

    @torch.inference_mode()
    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """(B, T) tokens so far and (B, V) the policy's scores to (B, V) guided scores."""
        batch = len(input_ids)
        if len(self._weights) not in (1, batch):
            raise UsageError(f"{len(self._weights)} preferences for {batch} rows.", "Give one, or one for each row.")
        guidance_weight = self._guidance_weight.to(scores.device).expand(batch)
        reward = self._follow(input_ids, guidance_weight)
        candidates, log_probs = select_candidates(scores, self._candidates)
        rewards = reward.rewards(candidates, log_probs).to(scores.device)
        answers = input_ids[:, self._prompt_length :]
        rewards = withhold_repeats(rewards, log_probs, candidates, answers, self._reward_ngram)
        guided = guided_scores(log_probs, rewards, guidance_weight).to(scores.dtype)
        guided = guided.masked_fill(~plausible(log_probs, self._plausibility, guidance_weight), -torch.inf)
        return torch.full_like(scores, -torch.inf).scatter(1, candidates, guided)

    def _follow(self, input_ids: torch.Tensor, guidance_weight: torch.Tensor) -> PairedStrategy:
        """Read what is new; start anew when the tokens do not continue those read before."""
        backbone = self._model.backbone
        tokens, before = input_ids.to(backbone.device), self._read
        self._read = tokens
        if self._reward is not None and before is not None and torch.equal(tokens[:, :-1], before):
            self._reward.push(tokens[:, -1])
            return self._reward
        start = slice(0, self._prompt_length)
        grown = before is not None and tokens.shape == (before.shape[0], before.shape[1] + 1)
        if before is None or not grown or not torch.equal(tokens[:, start], before[:, start]):
            self._prompt_length = tokens.shape[1]  # another prompt; otherwise beams of this one were reordered
        pad = backbone.tokenizer.pad_token_id
        padding = (tokens[:, : self._prompt_length - 1] == pad).long().cumprod(-1).sum(-1)  # leading padding only
        prompts = [row[count:].tolist() for row, count in zip(tokens, padding.tolist(), strict=True)]
        weights = self._weights.expand(len(tokens), -1)
        self._reward = PairedStrategy.reward_side(Guidance(self._model, "separate", prompts, weights, guidance_weight))
        return self._reward
