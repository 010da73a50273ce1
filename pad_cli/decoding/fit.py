"""Does a reward model fit a policy, and how would they decode? Answered from configurations and tokenizers.

Weights are read in one case only: when the policy has the backbone's sizes and tokenizer, so that it may be the
backbone itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any, cast

from transformers import AutoTokenizer

from pad_cli.decoding.paths import check_bridge, choose_path
from pad_cli.decoding.readers import Path
from pad_cli.equation import LogitHead
from pad_cli.errors import CheckpointError, VocabularyError
from pad_cli.models.checkpoint import SAMPLE
from pad_cli.models.hub import fetch_checkpoint
from pad_cli.models.inspection import Inspection, inspect_reward_model
from pad_cli.models.language_model import (
    LanguageModel,
    load_language_model,
    resolve_model,
    same_model,
    same_vocabulary,
)
from pad_cli.models.outline import load_outline
from pad_cli.models.reference import Reference
from pad_cli.models.reward_model import RewardModel
from pad_cli.models.weight_sample import read_sample
from pad_cli.recipe import ModelSettings

_MEANING: dict[Path, str] = {
    "fused": "The policy is the reward model's backbone, and the reward model has no adapter: one forward pass serves "
    "both, and steering costs next to nothing.",
    "paired": "The policy is the reward model's backbone, which also reads through an adapter or another prompt: one "
    "forward pass of twice the rows.",
    "separate": "The policy is another model with the backbone's vocabulary: the backbone reads along in a forward "
    "pass of its own, and may draft where it is much smaller.",
    "bridged": "The policy has another vocabulary: it is steered by text, which the backbone reads in its own tokens; "
    "the slowest path.",
}


@dataclass(frozen=True)
class Fit:
    """How a reward model would steer a policy.

    Attributes:
        policy: as the user named it.
        path: the decoding path; None when it cannot be steered.
        same_vocabulary: do policy and backbone mean the same by every token?
        is_backbone: is the policy the reward model's backbone?
        reason: what that means, and what to do where it does not fit.
    """

    policy: str
    path: Path | None
    same_vocabulary: bool
    is_backbone: bool
    reason: str


@dataclass(frozen=True)
class _Known:
    """What the choice of a path asks of a reward model."""

    backbone: LanguageModel
    reference: Reference
    adapter: Mapping[str, Any] | None


def fit_policy(reward_model: str, policy: ModelSettings) -> Fit:
    """Say which path a reward model and a policy would take.

    Args:
        reward_model: its directory, a registered source, or its id on the hub.
        policy: the language model to steer.

    Raises:
        CheckpointError: the reward model is missing or damaged.
        ModelLoadError: the policy's configuration cannot be had, or its weights where they are needed.
    """
    inspection = inspect_reward_model(reward_model)
    steered = load_outline(policy).as_language_model(fingerprint="")
    known = _Known(_backbone(inspection), _reference(inspection), inspection.adapter)
    if _may_be_backbone(inspection, steered):
        steered = _identified(inspection, steered, policy)
    model = cast(RewardModel, known)
    same, is_backbone = same_vocabulary(steered, known.backbone), same_model(steered, known.backbone)
    path = choose_path(steered, model, "auto")
    reason = _MEANING[path]
    if path == "bridged":
        try:
            check_bridge(steered, cast(RewardModel, replace(known, backbone=_outlined(inspection, known.backbone))))
        except VocabularyError as error:
            return Fit(policy.model, None, same, is_backbone, str(error))
    elif path == "separate" and _may_be_backbone(inspection, steered):
        reason += " It has the backbone's sizes, but other weights, or the same ones changed since."
    return Fit(policy.model, path, same, is_backbone, reason)


def _backbone(inspection: Inspection) -> LanguageModel:
    """The backbone by name: its tokenizer is in the checkpoint, and its weights are known by their fingerprint."""
    place = fetch_checkpoint(resolve_model(inspection.location))
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except Exception as error:  # a damaged file may raise anything
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"'{inspection.location}' has no tokenizer that can be read: {reason}", "Train or copy it again."
        ) from error
    fingerprint = inspection.config.get("backbone_fingerprint", f"of {inspection.location}")
    nothing: Any = None
    name, sample = str(inspection.config["backbone"]), read_sample(FilePath(place) / SAMPLE)
    return LanguageModel(name, nothing, tokenizer, cast(LogitHead, nothing), fingerprint, sample)


def _reference(inspection: Inspection) -> Reference:
    if inspection.config.get("conditioning") == "prompt":
        return Reference.POLICY
    return Reference.STATE if inspection.adapter is None else Reference.BACKBONE


def _may_be_backbone(inspection: Inspection, policy: LanguageModel) -> bool:
    config = inspection.config
    sizes = (config.get("vocabulary_size"), config["hidden_size"])
    return sizes == (policy.vocabulary_size, policy.hidden_size)


def _identified(inspection: Inspection, policy: LanguageModel, settings: ModelSettings) -> LanguageModel:
    """The policy with its fingerprint; the released form's backbone is known by its place only."""
    if inspection.form == "released":
        same = FilePath(settings.model).absolute() == FilePath(inspection.location).absolute()
        return replace(policy, fingerprint=f"of {inspection.location}" if same else "")
    loaded = load_language_model(settings)
    return replace(policy, fingerprint=loaded.fingerprint, sample=loaded.sample)


def _outlined(inspection: Inspection, backbone: LanguageModel) -> LanguageModel:
    """The backbone with its layers, which decide whether what it read can be taken back."""
    settings = ModelSettings(model=backbone.name, revision=inspection.config.get("backbone_revision"))
    return replace(backbone, model=load_outline(settings).model)
