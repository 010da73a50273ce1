"""What to answer: a prompt in the tokens of policy and backbone, its preference, guidance weight and random stream."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pad_cli.errors import DataError, PreferenceError, UsageError, did_you_mean
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_prompt
from pad_cli.models.reward_model import RewardModel
from pad_cli.preference import Preference
from pad_cli.records import Messages


@dataclass(frozen=True)
class Item:
    """One prompt to answer.

    Attributes:
        prompt: in the policy's tokens.
        backbone_prompt: in the backbone's.
        preference: empty for none.
        guidance_weight: not calibrated.
        stream: decides what sampling draws.
    """

    prompt: list[int]
    backbone_prompt: list[int]
    preference: Preference
    guidance_weight: float
    stream: str


def check_room(policy: LanguageModel, model: RewardModel | None, items: Sequence[Item], place: str = "") -> None:
    """Make sure that the models can read every prompt and at least one token more.

    Args:
        policy: the language model to steer.
        model: the reward model.
        items: what they read.
        place: file and line of the prompt, if it is one.

    Raises:
        DataError: they cannot.
    """
    backbone = policy if model is None else model.backbone
    for number, item in enumerate(items):
        for reader, tokens in ((policy, item.prompt), (backbone, item.backbone_prompt)):
            longest = reader.context_length
            if longest is not None and len(tokens) >= longest:
                which = f"Prompt {number + 1} of {len(items)}" if len(items) > 1 else "The prompt"
                raise DataError(
                    f"{which} has {len(tokens)} tokens; '{reader.name}' reads at most {longest}, of which one is for "
                    "the answer.",
                    path=place,
                    field="prompt" if place else "",
                    hint="Shorten it, or choose a model that reads more.",
                )


def prompt_tokens(
    policy: LanguageModel,
    model: RewardModel | None,
    conversations: Sequence[Messages],
    preferences: Sequence[Preference],
    policy_prompts: Sequence[Messages] | None = None,
    *,
    bridged: bool = False,
    policy_reads_preference: bool = False,
    template_options: Mapping[str, Any] | None = None,
) -> tuple[list[list[int]], list[list[int]]]:
    """What policy and backbone read for B conversations: two lists of token ids; one and the same if they can share it.

    Args:
        policy: the language model to steer.
        model: the reward model.
        conversations: what to answer.
        preferences: which the reward model may read in its prompt.
        policy_prompts: what the policy reads in place of the conversations.
        bridged: the two models have different vocabularies.
        policy_reads_preference: the policy reads the reward model's prompt.
        template_options: variables of the chat templates.

    Raises:
        DataError: a prompt is empty.
    """

    def encode(reader: LanguageModel, messages: Sequence[Messages]) -> list[list[int]]:
        return [encode_prompt(reader.tokenizer, each, template_options=template_options) for each in messages]

    policy_reads = list(policy_prompts or conversations)
    if model is None:
        prompts = encode(policy, policy_reads)
        return prompts, prompts
    reads = [model.prompt(each, preference) for each, preference in zip(conversations, preferences, strict=True)]
    same = policy_reads_preference and policy_prompts is None
    if same:
        policy_reads = reads
    prompts = encode(policy, policy_reads)
    if (same and not bridged) or (model.backbone.tokenizer is policy.tokenizer and reads == policy_reads):
        return prompts, prompts
    return prompts, encode(model.backbone, reads)


def safety_floor(always: Mapping[str, float], model: RewardModel | None) -> dict[str, float]:
    """The safety floor (`always` in a recipe) in the reward model's own names: w_k >= always_k in guided answers.

    Named weights are clamped by `with_floor`, and once free text was added to them by `clamp_to_minimum`.

    Raises:
        PreferenceError: the reward model does not know a principle.
        UsageError: there is none that has principles, or a weight is not above 0.
    """
    if always and (model is None or not model.principles):
        raise UsageError(
            "`always` needs a reward model with named principles: words in a prompt have no minimum weight.",
            "Leave `always` out, or name another reward model.",
        )
    names = {} if model is None else {name.lower(): name for name in model.principles}
    for name, weight in always.items():
        if name.lower() not in names:
            raise PreferenceError(f"always: unknown principle '{name}'.", did_you_mean(name, names.values()))
        if not 0 < weight < math.inf:
            raise UsageError(f"always: {weight} is not a weight for '{name}'.", "Give a number above 0.")
    return {names[name.lower()]: weight for name, weight in always.items()}


def clamp_to_minimum(weights: torch.Tensor, always: Mapping[str, float], principles: Sequence[str]) -> torch.Tensor:
    """Weights (N, K) of the K principles, none below the safety floor.

    Free text, which a preference encoder reads as weights of all principles, cannot take a named minimum away.
    """
    floor = [always.get(name, -math.inf) for name in principles]
    return torch.maximum(weights, weights.new_tensor(floor))
