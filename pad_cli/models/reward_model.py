"""The personalised reward model (PersRM): backbone + preference heads, and if trained an adapter and an encoder.

    r(p, s, a) = log softmax(logits_p)[a] - log softmax(logits_ref)[a]     nats

Paper: r = w_p^T phi(s, a) with phi the token log-ratio features (equation 6); here phi is linear in h, see `heads.py`.
With an adapter (the paper's step 1), logits_p come from the adapted backbone, and logits_ref from the plain one.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from pad_cli.equation import token_reward
from pad_cli.models.adapter import Adapter
from pad_cli.models.encoder import PreferenceEncoder, text_states
from pad_cli.models.heads import PreferenceHeads
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_answer, encode_prompt
from pad_cli.models.reference import Reference
from pad_cli.preference import Preference, expand_profiles, parse_preference
from pad_cli.profiles import profiles_of
from pad_cli.records import Messages
from pad_cli.system.progress import note
from pad_cli.system.runs import fingerprint

_WARNINGS = 3  # texts that are named


class RewardModel(Protocol):
    """What decoding asks of a reward model: logits_p = E (h + shift), relative to a reference."""

    @property
    def backbone(self) -> LanguageModel:
        """The language model under it."""

    @property
    def adapter(self) -> Adapter | None:
        """LoRA weights through which the backbone reads for logits_p."""

    @property
    def reference(self) -> Reference:
        """Where log pi_ref comes from."""

    @property
    def calibration(self) -> float:
        """Factor of rewards in decoding."""

    @property
    def principles(self) -> tuple[str, ...]:
        """Names that a preference may use."""

    @property
    def fingerprint(self) -> str:
        """Of everything that decides rewards."""

    def preference(self, specs: Iterable[str]) -> Preference:
        """Read a preference as typed after `--pref`."""

    def prompt(self, conversation: Messages, preference: Preference) -> Messages:
        """What the backbone reads for a conversation under a preference."""

    def weights(self, preferences: Sequence[Preference]) -> torch.Tensor:
        """(N, K) weights w_p."""

    def shift(self, hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """(N, H) states and (N, K) weights to (N, H)."""


@dataclass
class PersonalizedRewardModel:
    """Gives every (state, token) a reward under a preference; reads prompts without the preference.

    Attributes:
        backbone: the frozen language model under it.
        heads: the preference heads.
        encoder: for free-text preferences; None when that stage was not trained.
        calibration: factor by which decoding multiplies rewards, so that guidance weight 1 means the same strength for
            every reward model (see `training/calibration.py`).
        details: what else `pad_config.json` holds (stages, data, metrics).
        adapter: LoRA weights of the backbone; None when that stage was not trained.
    """

    backbone: LanguageModel
    heads: PreferenceHeads
    encoder: PreferenceEncoder | None = None
    calibration: float = 1.0
    details: dict[str, Any] = field(default_factory=dict)
    adapter: Adapter | None = None
    _warned: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    @property
    def principles(self) -> tuple[str, ...]:
        return self.heads.names

    @property
    def pair_moments(self) -> list[list[float]] | None:
        """(K, K), see `training/calibration.py`; None when it was not trained by this version."""
        return self.details.get("pair_moments")

    @property
    def reference(self) -> Reference:
        return Reference.STATE if self.adapter is None else Reference.BACKBONE

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of everything that decides rewards: backbone, heads, encoder, adapter, calibration."""
        modules = [self.heads] if self.encoder is None else [self.heads, self.encoder]
        tensors = [tensor for module in modules for tensor in module.state_dict().values()]
        if self.adapter is not None:
            tensors += self.adapter.tensors
        content = [tensor.float().cpu().numpy().tobytes().hex() for tensor in tensors]
        return fingerprint([self.backbone.fingerprint, self.calibration, content])

    def preference(self, specs: Iterable[str]) -> Preference:
        """Read a preference as typed after `--pref`.

        Raises:
            PreferenceError: it names something this reward model does not know, or another one's profile.
            DataError: a profile's file is wrong.
        """
        specs = expand_profiles(specs, profiles_of(self), self.principles)
        return parse_preference(specs, self.principles, accepts_text=self.encoder is not None)

    def prompt(self, conversation: Messages, preference: Preference) -> Messages:
        """The conversation as it is: the preference is in the heads' weights."""
        return conversation

    @torch.inference_mode()
    def weights(self, preferences: Sequence[Preference]) -> torch.Tensor:
        """The weights w_p of each preference: (N, K), on the backbone's device."""
        table = torch.zeros(len(preferences), len(self.principles))
        texts = sorted({text for preference in preferences for text in preference.texts})
        encoded: dict[str, torch.Tensor] = {}
        if texts:
            if self.encoder is None:
                raise ValueError("free text needs a preference encoder")
            weights, far = self.encoder.read(text_states(self.backbone, texts))
            encoded = dict(zip(texts, weights, strict=True))
            self._warn_of({texts[row]: owner for row, owner in far.items()})
        for row, preference in zip(table, preferences, strict=True):
            for name, weight in preference.weights.items():
                row[self.principles.index(name)] += weight
            for text, weight in preference.texts.items():
                row += weight * encoded[text]
        return table.to(self.backbone.device)

    def _warn_of(self, far: Mapping[str, int]) -> None:
        """Say once of each text that it was not understood; of many texts, say it of the first ones."""
        for text in sorted(far.keys() - self._warned):
            nearest = "" if far[text] < 0 else f" The nearest principle is '{self.principles[far[text]]}'."
            if len(self._warned) < _WARNINGS:
                note(f"Warning: '{text}' is unlike all wordings that this reward model knows: no effect.{nearest}")
            self._warned.add(text)
            if len(self._warned) == _WARNINGS:
                note("Further texts like this are not named.")

    def shift(self, hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """The shift of states: (N, H) hidden states and (N, K) weights to (N, H)."""
        shift: torch.Tensor = self.heads(hidden, weights)
        return shift

    @torch.inference_mode()
    def token_rewards(self, prompt: Messages, answer: str, preference: Preference) -> torch.Tensor:
        """Exact rewards of an answer's tokens, its end of sequence included: (T,) nats, not calibrated."""
        context = encode_prompt(self.backbone.tokenizer, prompt)
        target = torch.tensor(encode_answer(self.backbone.tokenizer, answer), device=self.backbone.device)
        tokens = torch.tensor([context], device=self.backbone.device)
        tokens = torch.cat([tokens, target[None, :-1]], dim=1)
        weights = self.weights([preference]).expand(len(target), -1)
        plain = hidden = self.backbone.hidden_states(tokens, torch.ones_like(tokens))[0, len(context) - 1 :]
        if self.adapter is not None:
            with self.adapter.on_rows_from(0):
                hidden = self.backbone.hidden_states(tokens, torch.ones_like(tokens))[0, len(context) - 1 :]
        shifted = hidden + self.shift(hidden, weights).to(hidden.dtype)
        return token_reward(self.backbone.head(shifted), self.backbone.head(plain), target)
