"""The personalised reward model in the form that PAD's authors released (hub id RuizheChen/PAD): conditioning `prompt`.

The preference is text in the prompt, which policy and reward model both read, and one dense head, the identity at
birth, moves the last hidden state before the unembedding:

    logits(a) = E (W h + b)[a]
    r(a)      = log softmax_C(logits)[a] - log softmax_C(policy logits)[a]      C: the policy's candidates

The reward is relative to the policy, not to the backbone without its head. The normaliser over C is a constant of the
state and changes no choice. Source: inference/PAD.py of the authors' repository (zjuruizhechen/PAD).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from safetensors.torch import save_file
from transformers.utils import cached_file

from pad_cli.errors import CheckpointError, PreferenceError
from pad_cli.models.adapter import Adapter
from pad_cli.models.checkpoint_config import VALUE_HEAD
from pad_cli.models.checkpoint_files import read_tensors
from pad_cli.models.language_model import LanguageModel, load_language_model, resolve_model
from pad_cli.models.reference import Reference
from pad_cli.preference import Preference, expand_profiles, parse_preference, rewrite_question
from pad_cli.profiles import profiles_of
from pad_cli.recipe import ModelSettings
from pad_cli.records import Messages
from pad_cli.system.runs import fingerprint

HEAD = VALUE_HEAD
_PICKLED_HEAD = "value_head.bin"
_PREFIX = "v_head.summary."
_NAMES = ("weight", "bias")
_TEMPLATE = (
    "[Guidelines] Your task is to generate response by considering the following principle. "
    "[Principles] {principles} [Instruction] {instruction}"
)


@dataclass
class PromptRewardModel:
    """Gives every (state, token) a reward under the preference that stands in its prompt.

    Attributes:
        backbone: the language model under it, itself trained to read preferences (the paper's step 1).
        head: W (H, H) and b (H,), in float32 whatever the backbone's format: W h + b is close to h, and what steers is
            the difference, which a bfloat16's 8 bits would blur.
        calibration: factor by which decoding multiplies rewards; 1 for the released form, which is not calibrated.
        adapter: LoRA weights of step 1; None in the released form, where they are in the backbone's own weights.
        details: what else `pad_config.json` holds; empty in the released form, which has none.
    """

    backbone: LanguageModel
    head: torch.nn.Linear
    calibration: float = 1.0
    adapter: Adapter | None = None
    details: dict[str, Any] = field(default_factory=dict)
    conditioning: ClassVar[Literal["prompt"]] = "prompt"
    reference: ClassVar[Reference] = Reference.POLICY

    @property
    def principles(self) -> tuple[str, ...]:
        """No names: any text will do."""
        return ()

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of everything that decides rewards: backbone, head, calibration."""
        tensors = [*self.head.state_dict().values(), *([] if self.adapter is None else self.adapter.tensors)]
        digests = [hashlib.sha256(tensor.float().cpu().numpy().tobytes()).hexdigest() for tensor in tensors]
        return fingerprint([self.backbone.fingerprint, self.calibration, digests])

    def preference(self, specs: Iterable[str]) -> Preference:
        """Read a preference as typed after `--pref`; every clause is text.

        Raises:
            PreferenceError: a clause has another weight than 1, which text cannot carry, or it names another reward
                model's profile.
            DataError: a profile's file is wrong.
        """
        preference = parse_preference(expand_profiles(specs, profiles_of(self)), (), accepts_text=True)
        _wordings(preference)
        return preference

    def weights(self, preferences: Sequence[Preference]) -> torch.Tensor:
        """No numbers for each preference: (N, 0), on the backbone's device."""
        return torch.zeros(len(preferences), 0, device=self.backbone.device)

    def shift(self, hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """W h + b - h: (N, H) hidden states and (N, 0) weights to (N, H), in the head's number format."""
        wide = hidden.to(self.head.weight.dtype)
        shift: torch.Tensor = self.head(wide) - wide
        return shift

    def prompt(self, conversation: Messages, preference: Preference) -> Messages:
        """The conversation with the preference in words around its last user message; see `conditioned`."""
        return conditioned(conversation, preference)


def conditioned(conversation: Messages, preference: Preference) -> Messages:
    """A conversation with the preference in words around its last user message.

    The authors' program knows a single message only. In a longer conversation the last question is the one to answer,
    and whatever stands before it, a system message too, stays as it is; so does everything under an empty preference.

    Raises:
        PreferenceError: the preference has another weight than 1.
        DataError: there is no user message, or it is empty.
    """
    wordings = _wordings(preference)
    if not wordings:
        return conversation
    principles = " and ".join(wordings)
    return rewrite_question(
        conversation, lambda question: _TEMPLATE.format(principles=principles, instruction=question)
    )


def is_released_form(location: str) -> bool:
    """Is this a reward model of the authors' form: a directory or hub repository with a value head?

    A directory with the head only as a pickle counts, so that loading it can say what is wrong. Of a hub repository the
    head is fetched, if it has one; without a network only what was fetched before is found.
    """
    location = resolve_model(location)
    return _find(location, HEAD) is not None or Path(location, _PICKLED_HEAD).is_file()


def load_prompt_reward_model(location: str, dtype: str = "auto", device: str = "auto") -> PromptRewardModel:
    """Load a reward model of the authors' form.

    Args:
        location: a directory or hub id with a causal language model and `value_head.safetensors`.
        dtype: number format of the language model.
        device: device for it and the head.

    Raises:
        CheckpointError: the head is missing, damaged, or does not fit.
        ModelLoadError: the language model cannot be loaded.
    """
    location = resolve_model(location)
    tensors = _read_head(location)
    settings = ModelSettings.model_validate({"model": location, "dtype": dtype, "device": device})
    backbone = load_language_model(settings)
    head = _checked(location, tensors, backbone.hidden_size)
    return PromptRewardModel(backbone, head.to(backbone.device))


def read_prompt_head(location: str, hidden_size: int) -> torch.nn.Linear:
    """The dense head of a directory or hub id, in float32.

    Raises:
        CheckpointError: it is missing, damaged, or does not fit.
    """
    return _checked(location, _read_head(location), hidden_size)


def save_prompt_head(head: torch.nn.Linear, directory: Path) -> None:
    """Write a dense head as the authors' program names it."""
    tensors = {_PREFIX + name: tensor.detach().float().cpu() for name, tensor in head.state_dict().items()}
    save_file(tensors, directory / HEAD)


def _checked(location: str, tensors: Mapping[str, torch.Tensor], size: int) -> torch.nn.Linear:
    """The head of these tensors."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != {"weight": (size, size), "bias": (size,)}:
        raise CheckpointError(
            f"The head of '{location}' has weight {shapes['weight']} and bias {shapes['bias']}; "
            f"hidden size {size} needs ({size}, {size}) and ({size},).",
            "A weight of one row is the value head of a scalar reward model, which cannot steer; use PAD's.",
        )
    head = torch.nn.Linear(size, size, device="meta")  # takes no memory and draws no random numbers
    head.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    return head.eval().requires_grad_(False)


def _wordings(preference: Preference) -> list[str]:
    """What the prompt says of a preference, in the order given.

    Raises:
        PreferenceError: something in it has another weight than 1.
    """
    weights = {**preference.weights, **preference.texts}
    for text, weight in weights.items():
        if weight != 1:
            raise PreferenceError(
                f"This reward model reads preferences in the prompt; it cannot give '{text}' the weight {weight:g}.",
                f"Name it once and without a number; to say no in words, write: text:not {text}",
            )
    return list(weights)


def _find(location: str, name: str) -> Path | None:
    """A file of a directory, or of a hub repository, from which it is fetched; None when there is none."""
    path = Path(location)
    if not path.is_dir() and (location.count("/") != 1 or path.parent.is_dir()):
        return None  # a directory that is not there; asking the hub for it would only cost time
    try:
        return Path(cached_file(location, name))
    except OSError:  # transformers' word for all of: no such file, no such repository, no network
        return None


def _read_head(location: str) -> dict[str, torch.Tensor]:
    """The head's `weight` and `bias`, as stored."""
    path = _find(location, HEAD)
    if path is None and Path(location, _PICKLED_HEAD).is_file():
        raise CheckpointError(
            f"'{location}' has {_PICKLED_HEAD} only: a pickle, which can run code when it is opened.",
            f"Where you trust that file, save its tensors as {HEAD} (safetensors.torch.save_file).",
        )
    if path is None:
        raise CheckpointError(
            f"'{location}' has no {HEAD}.", "Name a directory or a hub id that has one; a hub id needs the network."
        )
    tensors = read_tensors(path)
    wanted = {_PREFIX + name for name in _NAMES}
    if set(tensors) != wanted:
        lacks, extra = sorted(wanted - set(tensors)), sorted(set(tensors) - wanted)
        problems = [f"{verb} {', '.join(keys)}" for verb, keys in (("lacks", lacks), ("also has", extra)) if keys]
        raise CheckpointError(
            f"'{path}' {' and '.join(problems)}.", "It must hold one dense head, as the authors' program saves it."
        )
    return {name: tensors[_PREFIX + name] for name in _NAMES}
