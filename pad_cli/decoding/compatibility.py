"""Which path a policy and a reward model take, and whether they fit at all; see `_MEANING` for the paths."""

from __future__ import annotations

from dataclasses import dataclass

from pad_cli.decoding.session import can_roll_back
from pad_cli.decoding.strategies import Path
from pad_cli.errors import UsageError, VocabularyError
from pad_cli.models.checkpoint import load_reward_model
from pad_cli.models.language_model import LanguageModel, load_language_model, same_model, same_vocabulary
from pad_cli.models.reward_model import RewardModel
from pad_cli.models.vocabulary_bridge import VocabularyBridge
from pad_cli.recipe import ModelSettings


def choose_path(policy: LanguageModel, model: RewardModel, path: str, *, apart: bool = False) -> Path:
    """The path of these two, or the given one (`decoding.path`); UsageError if they cannot take it.

    With `apart` the policy reads other prompts than the reward model, so its rows cannot serve that as well.
    """
    possible: tuple[Path, ...]
    if not same_model(policy, model.backbone):
        possible = ("separate",) if same_vocabulary(policy, model.backbone) else ("bridged",)
    elif apart:  # paired, the reference of an adapter would be what the policy reads
        possible = ("separate",) if model.reference == "backbone" else ("paired", "separate")
    else:
        possible = ("fused", "paired", "separate") if model.reference == "state" else ("paired", "separate")
    if path in ("fused", "paired") and path not in possible:
        raise UsageError(
            f"decoding.path: {path} is not possible with this policy and reward model.",
            "fused and paired need the backbone as policy, and fused one prompt for both and no adapter. Use: auto",
        )
    return next((each for each in possible if each == path), possible[0])


def check_bridge(policy: LanguageModel, model: RewardModel) -> None:
    """Refuse a reward model that cannot steer a policy of another vocabulary (VocabularyError)."""
    if model.adapter is not None or not can_roll_back(model.backbone, rows=1):
        raise VocabularyError(
            f"The policy '{policy.name}' and the reward model's backbone '{model.backbone.name}' have different "
            "vocabularies, and this reward model cannot follow another one: it has an adapter, or its backbone's "
            "cache cannot be rolled back.",
            "Steer a policy that shares the backbone's tokenizer, or train preference heads without an adapter.",
        )
    VocabularyBridge(policy, model.backbone)


_MEANING: dict[Path, str] = {
    "fused": "The policy is the reward model's backbone: one forward pass serves both.",
    "paired": "The policy is the reward model's backbone, which also reads through an adapter or another prompt.",
    "separate": "The policy is another model with the backbone's vocabulary: the backbone reads along.",
    "bridged": "The policy has another vocabulary: the backbone reads its text in tokens of its own.",
}


@dataclass(frozen=True)
class Fit:
    """How a reward model would steer a policy; `path` is None when it cannot, and `reason` says why."""

    policy: str
    path: Path | None
    same_vocabulary: bool
    reason: str


def fit_policy(reward_model: str, policy: ModelSettings) -> Fit:
    """Load a reward model and a policy (CheckpointError, ModelLoadError), and say which path they take."""
    steered = load_language_model(policy)
    model = load_reward_model(reward_model, backbone=steered, dtype=policy.dtype, device=policy.device)
    backbone = model.backbone
    path = choose_path(steered, model, "auto")
    same, reason = same_vocabulary(steered, backbone), _MEANING[path]
    if path == "bridged":
        try:
            check_bridge(steered, model)
        except VocabularyError as error:
            return Fit(policy.model, None, same, str(error))
    elif path == "separate" and steered.head.weight.shape == backbone.head.weight.shape:
        reason += " It has the backbone's sizes, but other weights, or the same ones changed since."
    return Fit(policy.model, path, same, reason)
