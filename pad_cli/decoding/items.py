"""What to answer: a prompt in the tokens of policy and backbone, its preference, guidance weight and random stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_prompt
from pad_cli.models.reward_model import RewardModel
from pad_cli.preference import Preference
from pad_cli.recipe import DecodingSettings
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


def as_items(
    prompts: Sequence[list[int]],
    backbone_prompts: Sequence[list[int]],
    preferences: Sequence[Preference],
    settings: DecodingSettings,
    guidance_weights: Sequence[float] | None,
    streams: Sequence[str] | None,
) -> list[Item]:
    """Items from lists of the same length; `settings` fill in guidance weights; its seed is in every stream."""
    weights = guidance_weights or [settings.guidance_weight] * len(prompts)
    names = [f"{settings.seed}/{name}" for name in streams or range(len(prompts))]
    return [Item(*fields) for fields in zip(prompts, backbone_prompts, preferences, weights, names, strict=True)]


def prompt_tokens(
    policy: LanguageModel,
    model: RewardModel | None,
    conversations: Sequence[Messages],
    preferences: Sequence[Preference],
    path: str | None,
    settings: DecodingSettings,
    policy_prompts: Sequence[Messages] | None = None,
    *,
    template_options: Mapping[str, Any] | None = None,
) -> tuple[list[list[int]], list[list[int]]]:
    """What policy and backbone read for B conversations: two lists of token ids; one and the same if they can share it.

    Args:
        policy: the language model to steer.
        model: the reward model.
        conversations: what to answer.
        preferences: which the reward model may read in its prompt.
        path: of policy and reward model.
        settings: whether the policy reads the preference too.
        policy_prompts: what the policy reads in place of the conversations.
        template_options: variables of the chat templates.

    Raises:
        DataError: a prompt is empty.
    """

    def encode(reader: LanguageModel, conversation: Messages) -> list[int]:
        return encode_prompt(reader.tokenizer, conversation, template_options=template_options)

    policy_reads = list(policy_prompts or conversations)
    if model is None:
        prompts = [encode(policy, conversation) for conversation in policy_reads]
        return prompts, prompts
    reads = [model.prompt(each, preference) for each, preference in zip(conversations, preferences, strict=True)]
    same = settings.policy_reads_preference and policy_prompts is None
    if same:
        policy_reads = reads
    prompts = [encode(policy, conversation) for conversation in policy_reads]
    shared = same and path != "bridged"
    if shared or (model.backbone.tokenizer is policy.tokenizer and reads == policy_reads):
        return prompts, prompts
    return prompts, [encode(model.backbone, conversation) for conversation in reads]
