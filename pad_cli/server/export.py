"""A preference as an ordinary LoRA adapter of the output layer, for engines that know nothing of this project.

Guidance by frozen heads is linear in the state, up to a constant of the state that no choice depends on:

    log pi + g r  ~  E h + g sum_k w_k E B_k A_k h  =  (E + U D) h,     D = [A_k] (R, H), U = E [g w_k B_k] (V, R)

with g the guidance weight times the calibration, and R the number of principles with a weight times the heads' rank.
What the adapter leaves out is what stands between scores and choice in `pad_cli.decoding`: it guides the whole
vocabulary instead of the policy's top candidates, and does not withhold rewards from repeated n-grams.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import save_file

from pad_cli.errors import UsageError
from pad_cli.models.language_model import LanguageModel, same_model
from pad_cli.models.reward_model import PersonalizedRewardModel, RewardModel
from pad_cli.registry import resolve_model
from pad_cli.server.adapter_card import adapter_card
from pad_cli.system.runs import check_output, whole_files

FACTS = "pad_preference.json"
"""The file of an exported adapter that says which preference it is, and of which models."""


@dataclass(frozen=True)
class PreferenceAdapter:
    """A change U D of the unembedding.

    Attributes:
        down: D, (R, H).
        up: U, (V, R).
        error: of the change, left by reducing its rank: Frobenius norm relative to the whole change's; 0 for none.
    """

    down: torch.Tensor
    up: torch.Tensor
    error: float = 0.0

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])

    def reduced(self, rank: int) -> PreferenceAdapter:
        """The nearest change of a lower rank (Eckart and Young 1936); itself if its rank is no higher."""
        if rank >= self.rank:
            return self
        columns, upper = torch.linalg.qr(self.up.double())
        left, sizes, right = torch.linalg.svd(upper @ self.down.double(), full_matrices=False)
        root = sizes[:rank].sqrt()
        error = float((sizes[rank:].square().sum() / sizes.square().sum()).sqrt())
        up, down = columns @ (left[:, :rank] * root), root[:, None] * right[:rank]
        return PreferenceAdapter(down.to(self.down.dtype), up.to(self.up.dtype), error)


def preference_adapter(
    policy: LanguageModel, model: RewardModel | None, weights: torch.Tensor, guidance_weight: float
) -> PreferenceAdapter:
    """One preference as a change of the policy's unembedding, in float32.

    Args:
        policy: the language model to steer; it must be the reward model's backbone.
        model: the reward model.
        weights: (K,) w_p, see `PadEngine.preference_weights`.
        guidance_weight: not calibrated.

    Raises:
        UsageError: the guidance of these models is no change of the unembedding, or there is none.
    """
    if not isinstance(model, PersonalizedRewardModel):
        raise UsageError("Only preference heads can be exported.", "Name a reward model with heads: --reward-model")
    if model.adapter is not None:
        raise UsageError(
            "This reward model reads through an adapter of its own, which no change of the output layer can stand for.",
            "Train one on a frozen backbone: stages [heads, encoder].",
        )
    if not same_model(policy, model.backbone):
        raise UsageError(
            f"The policy '{policy.name}' is not the reward model's backbone '{model.backbone.name}'.",
            "An adapter changes the backbone's own output layer: name the backbone as --policy.",
        )
    if policy.head.cap is not None:
        raise UsageError(
            "This policy caps its logits (final_logit_softcapping), so guidance is no low-rank change of them.",
            "Steer it with pad generate.",
        )
    strength = guidance_weight * model.calibration * weights.float()
    active = strength.nonzero()[:, 0]
    if not len(active):
        raise UsageError("This preference changes nothing.", "Give a --pref with an effect, and a --weight above 0.")
    heads = model.heads
    down = heads.down[active].float().reshape(-1, heads.down.shape[2])
    wide = (heads.up[active].float() * strength[active, None, None]).transpose(1, 2).reshape(len(down), -1)  # (R, H)
    return PreferenceAdapter(down, policy.head.weight.float() @ wide.T)


def check_adapter_output(out: Path, *, overwrite: bool = False) -> None:
    """Make sure that an adapter written to `out` replaces nothing but an earlier one.

    Raises:
        UsageError: something else is there.
    """
    check_output(out, "exported adapter", lambda directory: (directory / FACTS).is_file(), overwrite=overwrite)


def save_adapter(adapter: PreferenceAdapter, policy: LanguageModel, facts: Mapping[str, Any], out: Path) -> None:
    """Write an adapter as PEFT reads it, with a model card and what made it; an earlier one there is replaced.

    Args:
        adapter: the change.
        policy: the language model that it belongs to.
        facts: which preference it is, for the card and `pad_preference.json`.
        out: a directory.

    Raises:
        StorageError: it cannot be written.
    """
    layer, location = _output_layer(policy), resolve_model(policy.name)
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.rank,
        target_modules=[layer],
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=location,
        inference_mode=True,
    )
    told = {**facts, "rank": adapter.rank, "error": adapter.error, "policy_fingerprint": policy.fingerprint}
    prefix = f"base_model.model.{layer}"
    tensors = {f"{prefix}.lora_A.weight": adapter.down, f"{prefix}.lora_B.weight": adapter.up}
    with whole_files(out, last=FACTS) as scratch:
        config.save_pretrained(str(scratch))
        save_file(
            {name: tensor.cpu().contiguous() for name, tensor in tensors.items()},
            scratch / "adapter_model.safetensors",
            metadata={"format": "pt"},
        )
        (scratch / FACTS).write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (scratch / "README.md").write_text(adapter_card(told, location), encoding="utf-8")


def _output_layer(policy: LanguageModel) -> str:
    """The name of the module that is the unembedding."""
    wanted = policy.model.get_output_embeddings()
    return next(str(name) for name, module in policy.model.named_modules() if module is wanted)
