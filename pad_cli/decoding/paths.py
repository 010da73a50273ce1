"""Which way to decode: the path of policy and reward model, and whether the reward model drafts.

fused      the policy is the backbone, and the reward model reads what the policy reads: one forward
paired     the policy is the backbone, but the reward model reads through an adapter or reads another prompt
separate   another backbone with the policy's vocabulary; a small one can draft for a large policy
bridged    another backbone with another vocabulary
"""

from __future__ import annotations

from typing import Literal

from pad_cli.decoding.block_length import BlockLength
from pad_cli.decoding.loop import Request
from pad_cli.decoding.ragged_stream import can_be_ragged
from pad_cli.decoding.readers import Path
from pad_cli.decoding.speculative import can_speculate
from pad_cli.errors import UsageError, VocabularyError
from pad_cli.models.language_model import LanguageModel, same_model, same_vocabulary
from pad_cli.models.reward_model import RewardModel
from pad_cli.models.vocabulary_bridge import VocabularyBridge

_DRAFT_FROM = 8  # auto drafts when the policy has this many times the backbone's parameters


def choose_path(policy: LanguageModel, model: RewardModel, wanted: str, *, apart: bool = False) -> Path:
    """The path of these two, or the one that is wanted.

    Args:
        policy: the language model to steer.
        model: what to steer it with.
        wanted: `decoding.path`.
        apart: the policy is given other prompts than the reward model, so its rows cannot serve that as well.

    Raises:
        UsageError: they cannot take the path that is wanted.
    """
    if not same_model(policy, model.backbone):
        if wanted in ("fused", "paired"):
            raise UsageError(
                f"decoding.path: {wanted} needs a policy that is the reward model's backbone.", "Use: auto"
            )
        return "separate" if same_vocabulary(policy, model.backbone) else "bridged"
    if wanted == "fused" and (apart or model.reference != "state"):
        raise UsageError(
            "decoding.path: fused needs a reward model that reads what the policy reads, without an adapter.",
            "Use: auto",
        )
    if apart and model.reference == "backbone":  # paired, its reference would be what the policy reads
        if wanted == "paired":
            raise UsageError("decoding.path: this policy and reward model read different prompts.", "Use: auto")
        return "separate"
    if wanted == "separate":
        return "separate"
    return "paired" if wanted == "paired" or apart or model.reference != "state" else "fused"


def check_bridge(policy: LanguageModel, model: RewardModel) -> None:
    """Can the reward model steer a policy of another vocabulary?

    Raises:
        VocabularyError: it cannot.
    """
    if model.adapter is not None or not can_be_ragged(model.backbone, rows=1):
        raise VocabularyError(
            f"The policy '{policy.name}' and the reward model's backbone '{model.backbone.name}' have different "
            "vocabularies, and this reward model cannot follow another one: it has an adapter, or its backbone keeps "
            "states that cannot be taken back.",
            "Steer a policy that shares the backbone's tokenizer, or train preference heads without an adapter.",
        )
    VocabularyBridge(policy, model.backbone)


def speculation(request: Request, draft_tokens: int | Literal["auto"]) -> BlockLength | None:
    """How many tokens the reward model drafts, for `speculate_steps`; None: it does not, see `decode_steps`.

    Args:
        request: what is to be answered.
        draft_tokens: `decoding.draft_tokens`.

    Raises:
        UsageError: a number is set, but these models cannot speculate on this path, or not so many rows at once.
    """
    if request.guidance is None or draft_tokens == 0:
        return None
    possible = can_speculate(request.policy, request.guidance, len(request.prompts))
    if draft_tokens == "auto":
        policy, backbone = request.policy.model, request.guidance.model.backbone.model
        pays = policy.num_parameters() >= _DRAFT_FROM * backbone.num_parameters()
        return BlockLength() if possible and pays else None
    if not possible:
        raise UsageError(
            "decoding.draft_tokens: the reward model cannot draft here.",
            "It needs path separate, no adapter, and batch_size 1 where attention has a sliding window. Use: auto",
        )
    return BlockLength(draft_tokens)
