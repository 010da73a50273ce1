"""The two reward models: a head for each principle (`conditioning: heads`), or the preference in the prompt (`prompt`).

    r(p, s, a) = log softmax(logits_p)[a] - log softmax(logits_ref)[a]     nats,    logits_p = E (h + shift)

Heads: r = w_p^T phi(s, a) in the paper (equation 6), with phi the token log-ratio features, here linear in h. With an
adapter (the paper's step 1), logits_p come from the adapted backbone, and logits_ref from the plain one.

Prompt: the form that PAD's authors released (hub id RuizheChen/PAD; inference/PAD.py of zjuruizhechen/PAD). Policy and
reward model both read the preference, one dense head moves the last hidden state, and the reward is relative to the
policy, with both normalised over its candidates: a constant of the state, which changes no choice.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Literal

import torch

from pad_cli.equation import LogitHead, token_reward
from pad_cli.errors import PreferenceError, UsageError
from pad_cli.models.adapter import Adapter
from pad_cli.models.heads import PreferenceEncoder, PreferenceHeads, dense_shift, text_states
from pad_cli.models.language_model import LanguageModel, same_vocabulary
from pad_cli.models.prompts import encode_answer, encode_prompt
from pad_cli.models.scoring import TokenSequence, answer_states, targets_and_owners, token_log_probs
from pad_cli.preference import Preference, parse_preference, rewrite_question
from pad_cli.profiles import profile_weights
from pad_cli.records import Messages
from pad_cli.system.progress import note
from pad_cli.system.runs import fingerprint

_NAMED_WARNINGS = 3
_TEMPLATE = (
    "[Guidelines] Your task is to generate response by considering the following principle. "
    "[Principles] {principles} [Instruction] {instruction}"
)


class Reference(StrEnum):
    """Whose log-probabilities are log pi_ref; equal to its name as a string."""

    STATE = "state"  # the same state without its shift: preference heads on a frozen backbone
    BACKBONE = "backbone"  # the plain backbone: a reward model that reads through an adapter
    POLICY = "policy"  # a reward model that reads the preference in its prompt, as PAD's authors released

    def model(self, backbone: LanguageModel, policy: LanguageModel) -> LanguageModel:
        """The language model that gives log pi_ref."""
        return policy if self is Reference.POLICY else backbone

    def fingerprint(self, policy: LanguageModel) -> str | None:
        """What decides rewards beside the reward model itself; None where nothing does."""
        return policy.fingerprint if self is Reference.POLICY else None

    def check(self, backbone: LanguageModel, policy: LanguageModel) -> None:
        """Raise a UsageError if rewards are relative to the policy, and its vocabulary is not the backbone's."""
        if not same_vocabulary(self.model(backbone, policy), backbone):
            raise UsageError(
                "This reward model's rewards are relative to the policy, which has another vocabulary.",
                "Choose a policy with the backbone's tokenizer.",
            )

    def states(
        self, hidden: torch.Tensor, batch: Sequence[TokenSequence], backbone: LanguageModel, policy: LanguageModel
    ) -> torch.Tensor:
        """(T, H) states from which `model` predicts a batch's T answer tokens; `hidden` are the reward model's own."""
        return hidden if self is Reference.STATE else answer_states(self.model(backbone, policy), batch)

    def log_probs(
        self, hidden: torch.Tensor, batch: Sequence[TokenSequence], backbone: LanguageModel, policy: LanguageModel
    ) -> torch.Tensor:
        """log pi_ref of the answers' tokens, (T,) nats; arguments as in `states`."""
        model, states = self.model(backbone, policy), self.states(hidden, batch, backbone, policy)
        targets, _ = targets_and_owners(batch, states.device)
        return token_log_probs(states, targets, model.head)

    def at_candidates(
        self, head: LogitHead, plain: torch.Tensor, candidates: torch.Tensor, log_probs: torch.Tensor
    ) -> torch.Tensor | None:
        """log pi_ref of candidates (N, C) up to a constant, as `equation.candidate_rewards` takes it: (N, C), or None.

        `head` and `plain` (N, H) are the backbone's, `log_probs` (N, C) the policy's.
        """
        if self is Reference.STATE:
            return None
        return log_probs if self is Reference.POLICY else head.at(plain.float(), candidates.to(plain.device))


@dataclass
class PersonalizedRewardModel:
    """Gives every (state, token) a reward under a preference; reads prompts without the preference.

    Attributes:
        backbone: the frozen language model under it.
        heads: the preference heads.
        encoder: for free-text preferences; None when that stage was not trained.
        calibration: factor by which decoding multiplies rewards, see `training/token_rewards.py`.
        details: what else `pad_config.json` holds (stages, data, metrics).
        adapter: LoRA weights through which the backbone reads for logits_p; None when that stage was not trained.
    """

    backbone: LanguageModel
    heads: PreferenceHeads
    encoder: PreferenceEncoder | None = None
    calibration: float = 1.0
    details: dict[str, Any] = field(default_factory=dict)
    adapter: Adapter | None = None
    conditioning: ClassVar[Literal["heads"]] = "heads"
    _warned: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    @property
    def principles(self) -> tuple[str, ...]:
        """Names that a preference may use."""
        return self.heads.names

    @property
    def pair_moments(self) -> list[list[float]] | None:
        """(K, K), see `pair_moments` in `training/metrics.py`; None when it was not trained by this version."""
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
            PreferenceError: it names something that this reward model does not know.
            DataError: a profile's file is wrong.
        """
        profiles = functools.partial(profile_weights, model=self)
        return parse_preference(specs, self.principles, accepts_text=self.encoder is not None, profiles=profiles)

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
        """Warn once of each text that was not understood, and of the first few by name."""
        for text in sorted(far.keys() - self._warned):
            nearest = "" if far[text] < 0 else f" The nearest principle is '{self.principles[far[text]]}'."
            if len(self._warned) < _NAMED_WARNINGS:
                note(f"Warning: '{text}' is unlike all paraphrases that this reward model knows: no effect.{nearest}")
            elif len(self._warned) == _NAMED_WARNINGS:
                note("Warning: more texts have no effect; they are not listed.")
            self._warned.add(text)

    def shift(self, hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """(N, H) hidden states and (N, K) weights to the (N, H) shift, in the heads' dtype."""
        shift: torch.Tensor = self.heads(hidden, weights)
        return shift

    @torch.inference_mode()
    def token_rewards(self, prompt: Messages, answer: str, preference: Preference) -> torch.Tensor:
        """Exact rewards of an answer's tokens, its end of sequence included: (T,) nats, not calibrated."""
        tokenizer = self.backbone.tokenizer
        batch = [(tuple(encode_prompt(tokenizer, prompt)), tuple(encode_answer(tokenizer, answer)))]
        hidden = answer_states(self.backbone, batch, self.adapter)
        plain = self.reference.states(hidden, batch, self.backbone, self.backbone)
        weights = self.weights([preference]).expand(len(hidden), -1)
        shifted = hidden + self.shift(hidden, weights).to(hidden.dtype)
        targets, _ = targets_and_owners(batch, hidden.device)
        return token_reward(self.backbone.head(shifted), self.backbone.head(plain), targets)


@dataclass
class PromptRewardModel:
    """Gives every (state, token) a reward under the preference that stands in its prompt.

    Attributes:
        backbone: the language model under it, itself trained to read preferences (the paper's step 1).
        head: W (H, H) and b (H,), in float32 whatever the backbone's dtype: W h + b is close to h, and what steers is
            the difference, which a bfloat16's 8 bits would blur.
        calibration: factor by which decoding multiplies rewards; 1 for the released form.
        adapter: LoRA weights of step 1; None in the released form, where they are in the backbone's own weights.
        details: what else `pad_config.json` holds.
    """

    backbone: LanguageModel
    head: torch.nn.Linear
    calibration: float = 1.0
    adapter: Adapter | None = None
    details: dict[str, Any] = field(default_factory=dict)
    conditioning: ClassVar[Literal["prompt"]] = "prompt"
    reference: ClassVar[Reference] = Reference.POLICY
    principles: ClassVar[tuple[str, ...]] = ()  # no names: any text will do

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of everything that decides rewards: backbone, head, calibration."""
        tensors = [*self.head.state_dict().values(), *([] if self.adapter is None else self.adapter.tensors)]
        digests = [hashlib.sha256(tensor.float().cpu().numpy().tobytes()).hexdigest() for tensor in tensors]
        return fingerprint([self.backbone.fingerprint, self.calibration, digests])

    def preference(self, specs: Iterable[str]) -> Preference:
        """Read a preference as typed after `--pref`; every clause is text, and its weight is 1 or a PreferenceError."""
        profiles = functools.partial(profile_weights, model=self)
        preference = parse_preference(specs, (), accepts_text=True, profiles=profiles)
        _texts(preference)
        return preference

    def weights(self, preferences: Sequence[Preference]) -> torch.Tensor:
        """No numbers for each preference: (N, 0), on the backbone's device."""
        return torch.zeros(len(preferences), 0, device=self.backbone.device)

    def shift(self, hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """W h + b - h: (N, H) hidden states and (N, 0) weights to (N, H), in the head's dtype."""
        return dense_shift(self.head, hidden)

    def prompt(self, conversation: Messages, preference: Preference) -> Messages:
        """The conversation with the preference in words around its last user message; see `conditioned`."""
        return conditioned(conversation, preference)


RewardModel = PersonalizedRewardModel | PromptRewardModel


def conditioned(conversation: Messages, preference: Preference) -> Messages:
    """A conversation with the preference in words around its last user message; unchanged under an empty one.

    The authors' program knows a single message only; what stands before the last question stays as it is.
    """
    principles = " and ".join(_texts(preference))
    if not principles:
        return conversation
    return rewrite_question(conversation, lambda text: _TEMPLATE.format(principles=principles, instruction=text))


def _texts(preference: Preference) -> list[str]:
    """What the prompt says of a preference, in order; a PreferenceError if something has another weight than 1."""
    weights = {**preference.weights, **preference.texts}
    for text, weight in weights.items():
        if weight != 1:
            raise PreferenceError(
                f"This reward model reads preferences in the prompt; it cannot give '{text}' the weight {weight:g}.",
                f"Name it once and without a weight; to negate it, write: text:not {text}",
            )
    return list(weights)
