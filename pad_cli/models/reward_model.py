"""The personalised reward model (PersRM): backbone + preference heads + preference encoder.

    r(p, s, a) = log softmax(logits_p)[a] - log softmax(logits_ref)[a]     nats

Paper: r = w_p^T phi(s, a) with phi the token log-ratio features (equation 6); here phi is linear in h, see `heads.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from pad_cli.models.encoder import PreferenceEncoder, text_states
from pad_cli.models.heads import PreferenceHeads
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_answer, encode_prompt
from pad_cli.preference import Preference, parse_preference
from pad_cli.records import Messages
from pad_cli.runs import fingerprint


@dataclass
class PersonalizedRewardModel:
    """Gives every (state, token) a reward under a preference.

    Attributes:
        backbone: the frozen language model under it.
        heads: the preference heads.
        encoder: for free-text preferences; None when that stage was not trained.
        calibration: factor by which decoding multiplies rewards, so that guidance weight 1 means the same strength for
            every reward model (see `training/calibration.py`).
        details: what else `pad_config.json` holds (stages, data, metrics).
    """

    backbone: LanguageModel
    heads: PreferenceHeads
    encoder: PreferenceEncoder | None = None
    calibration: float = 1.0
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def principles(self) -> tuple[str, ...]:
        return self.heads.names

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of everything that decides rewards: backbone, heads, encoder, calibration."""
        modules = [self.heads] if self.encoder is None else [self.heads, self.encoder]
        tensors = [tensor.float().cpu().numpy().tobytes().hex() for m in modules for tensor in m.state_dict().values()]
        return fingerprint([self.backbone.fingerprint, self.calibration, tensors])

    def preference(self, specs: Iterable[str]) -> Preference:
        """Read a preference as typed after `--pref`.

        Raises:
            PreferenceError: it names something this reward model does not know.
        """
        return parse_preference(specs, self.principles, accepts_text=self.encoder is not None)

    @torch.inference_mode()
    def weights(self, preferences: Sequence[Preference]) -> torch.Tensor:
        """The weights w_p of each preference: (N, K), on the backbone's device."""
        table = torch.zeros(len(preferences), len(self.principles))
        texts = sorted({text for preference in preferences for text in preference.texts})
        encoded: dict[str, torch.Tensor] = {}
        if texts:
            if self.encoder is None:
                raise ValueError("free text needs a preference encoder")
            encoded = dict(zip(texts, self.encoder(text_states(self.backbone, texts)), strict=True))
        for row, preference in zip(table, preferences, strict=True):
            for name, weight in preference.weights.items():
                row[self.principles.index(name)] += weight
            for text, weight in preference.texts.items():
                row += weight * encoded[text]
        return table.to(self.backbone.device)

    def shift(self, hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """delta_p(h): (N, H) hidden states and (N, K) weights to (N, H)."""
        shift: torch.Tensor = self.heads(hidden, weights)
        return shift

    @torch.inference_mode()
    def token_rewards(self, prompt: Messages, answer: str, preference: Preference) -> torch.Tensor:
        """Exact rewards of an answer's tokens, its end of sequence included: (T,) nats, not calibrated."""
        context = encode_prompt(self.backbone.tokenizer, prompt)
        target = torch.tensor(encode_answer(self.backbone.tokenizer, answer), device=self.backbone.device)
        tokens = torch.tensor([context], device=self.backbone.device)
        tokens = torch.cat([tokens, target[None, :-1]], dim=1)
        hidden = self.backbone.hidden_states(tokens, torch.ones_like(tokens))[0, len(context) - 1 :]
        weights = self.weights([preference]).expand(len(target), -1)
        shifted = hidden + self.shift(hidden, weights).to(hidden.dtype)
        personalised = self.backbone.head(shifted).float().log_softmax(-1)
        reference = self.backbone.head(hidden).float().log_softmax(-1)
        return (personalised - reference).gather(1, target[:, None])[:, 0]
