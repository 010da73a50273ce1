"""What to answer: a prompt in the tokens of policy and backbone, its preference, guidance weight and random stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pad_cli.errors import DataError, UsageError
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_prompt
from pad_cli.models.reward_model import RewardModel
from pad_cli.preference import Preference
from pad_cli.recipe import DecodingSettings
from pad_cli.records import Messages, as_messages

_QUOTED = 40  # characters of a prompt


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


def check_one_each(count: int, **lists: Sequence[Any] | None) -> None:
    """Make sure that every list that is given has one entry for each of `count` prompts.

    Raises:
        UsageError: one has another length; says which.
    """
    for name, values in lists.items():
        if values is not None and len(values) != count:
            raise UsageError(f"{count} prompts, but {len(values)} {name}.", "Give one for each prompt.")


def check_room(
    policy: LanguageModel,
    model: RewardModel | None,
    items: Sequence[Item],
    prompts: Sequence[str | Messages] | None = None,
    *,
    place: str = "",
) -> None:
    """Make sure that the models can read every prompt and at least one token more.

    Args:
        policy: the language model to steer.
        model: the reward model.
        items: what they read.
        prompts: the same as text, to say which one is too long.
        place: where the prompt was read, if it is one.

    Raises:
        DataError: they cannot.
    """
    backbone = policy if model is None else model.backbone
    for number, item in enumerate(items):
        for reader, tokens in ((policy, item.prompt), (backbone, item.backbone_prompt)):
            longest = reader.context_length
            if longest is not None and len(tokens) >= longest:
                which = f"Prompt {number + 1} of {len(items)}" if len(items) > 1 else "The prompt"
                if prompts is not None and len(items) > 1:
                    which += f" ({as_messages(prompts[number])[-1]['content'][:_QUOTED]!r} ...)"
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
