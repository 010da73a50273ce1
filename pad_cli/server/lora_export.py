"""A preference as an ordinary LoRA adapter of the output layer, for engines that know nothing of this project.

Guidance by frozen heads is linear in the state, up to a constant of the state that no choice depends on:

    log pi + g r  ~  E h + g sum_k w_k E B_k A_k h  =  (E + U D) h,     D = [A_k] (R, H), U = E [g w_k B_k] (V, R)

with g the guidance weight times the calibration, and R the number of principles with a weight times the heads' rank.
What the adapter leaves out is what stands between scores and choice in `pad_cli.decoding`: it guides the whole
vocabulary instead of the policy's top candidates, and does not withhold rewards from repeated n-grams.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from peft import LoraConfig
from safetensors.torch import save_file

from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import UsageError, did_you_mean
from pad_cli.models.language_model import LanguageModel, same_model
from pad_cli.models.reward_model import PersonalizedRewardModel, RewardModel
from pad_cli.pairs import RowError, read_rows
from pad_cli.preference import LARGEST, Preference, with_floor
from pad_cli.registry import resolve_model
from pad_cli.system.progress import bar
from pad_cli.system.runs import check_output, whole_files, write_json

METADATA = "pad_preference.json"
"""The file of an exported adapter that says which preference it is, and of which models."""

_USER = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")

_CARD = """---
{front}---

# {preference}: a preference for `{policy}`

A LoRA adapter of the output layer that `pad export` made from a personalised reward model. It adds the reward of one
preference to the logits of the language model, which is otherwise unchanged. `pad_preference.json` holds the weights,
the guidance weight, the rank and the fingerprints of both models.

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({policy!r}), ".")
```

Unlike `pad generate`, it guides the whole vocabulary and not only the policy's likeliest tokens, and it does not
withhold rewards from repetition: expect more of it at high guidance weights. Do not merge it into a model whose
input and output embeddings are one tensor.
"""


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


def check_adapter_output(out: Path, *, overwrite: bool = False) -> None:
    """Refuse to write an adapter over anything but an earlier one (UsageError)."""
    check_output(out, "exported adapter", lambda directory: (directory / METADATA).is_file(), overwrite=overwrite)


def export_preference(
    engine: PadEngine,
    preference: Preference,
    guidance_weight: float,
    out: Path | str,
    rank: int | None = None,
    *,
    overwrite: bool = False,
) -> PreferenceAdapter:
    """Write a preference as a LoRA adapter of the policy's output layer, the safety floor included.

    The policy must be the reward model's backbone, and `out` a new directory, unless `overwrite`, or an earlier export.
    The rank is by default that of the heads times the number of principles with a weight.

    Raises:
        UsageError: these models' guidance is no change of the output layer, there is none, or `out` holds other things.
        StorageError: it cannot be written.
    """
    if guidance_weight < 0 and engine.always:
        raise UsageError("A negative guidance weight turns `always` into its opposite.", "Give one of 0 or above.")
    check_adapter_output(Path(out), overwrite=overwrite)
    preference = with_floor(preference, engine.always)
    weights = engine.preference_weights([preference])[0]
    policy, model = engine.policy, _exportable(engine.policy, engine.reward_model)
    strengths = guidance_weight * model.calibration * weights.float()  # (K,): g w_k
    heads, active = model.heads, strengths.nonzero()[:, 0]
    if not len(active):
        raise UsageError("This preference changes nothing.", "Give a --pref with an effect, and a --weight above 0.")
    down = heads.down[active].float().reshape(-1, heads.down.shape[2])
    wide = (heads.up[active].float() * strengths[active, None, None]).transpose(1, 2).reshape(len(down), -1)  # (R, H)
    adapter = PreferenceAdapter(down, policy.head.weight.float() @ wide.T)
    adapter = adapter if rank is None else adapter.reduced(rank)
    metadata = {
        "preference": preference.describe(),
        "weights": {name: value for name, value in zip(model.principles, weights.tolist(), strict=True) if value},
        "always": engine.always,
        "guidance_weight": guidance_weight,
        "calibration": model.calibration,
        "reward_model": model.fingerprint,
        "rank": adapter.rank,
        "error": adapter.error,
        "policy_fingerprint": policy.fingerprint,
    }
    _save(adapter, policy, metadata, Path(out))
    return adapter


def export_users(
    engine: PadEngine,
    table: Path,
    guidance_weight: float,
    out: Path | str,
    rank: int | None = None,
    *,
    overwrite: bool = False,
) -> tuple[int, list[str]]:
    """Write an adapter `out`/USER for each user of a table that `pad learn --users` made; see `export_preference`.

    Returns:
        How many were written, and the users without any weight: the plain model serves them.

    Raises:
        DataError: a line is wrong; nothing is written then.
        UsageError, StorageError: as in `export_preference`.
    """
    exported: dict[str, Preference] = {}
    without: list[str] = []
    for row in read_rows(table):
        user = row.values.get("user")
        try:
            if not isinstance(user, str) or not _USER.fullmatch(user) or user in exported or user in without:
                reason = f"{user!r} is not a directory name, or is duplicated"
                raise RowError(reason, field="user", hint="Letters, digits, -, _ and dots.")
            preference = _user_preference(engine.reward_model, row.values)
        except RowError as problem:
            raise problem.at(row) from problem
        if with_floor(preference, engine.always):
            check_adapter_output(Path(out) / user, overwrite=overwrite)
            exported[user] = preference
        else:
            without.append(user)
    with bar("Exporting", total=len(exported)) as progress:
        for user, preference in exported.items():
            export_preference(engine, preference, guidance_weight, Path(out) / user, rank, overwrite=overwrite)
            progress.advance()
    return len(exported), without


def _user_preference(model: RewardModel | None, row: Mapping[str, Any]) -> Preference:
    weights, principles = row.get("weights"), () if model is None else model.principles
    if not isinstance(weights, Mapping):
        raise RowError("is not a map of principles to weights", field="weights")
    if model is not None and row.get("reward_model", model.fingerprint) != model.fingerprint:
        hint = "Learn it again: pad learn --users ... --reward-model ..."
        raise RowError(f"belongs to another reward model than {model.fingerprint}", field="reward_model", hint=hint)
    for name, weight in weights.items():
        if name not in principles:
            raise RowError("no such principle", field=name, hint=did_you_mean(name, principles))
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not abs(weight) <= LARGEST:
            raise RowError(f"is not a finite number up to {LARGEST:g}", field=name)
    return Preference({name: float(weight) for name, weight in weights.items() if weight}, {})


def _exportable(policy: LanguageModel, model: RewardModel | None) -> PersonalizedRewardModel:
    """The reward model, if its guidance of this policy is a low-rank change of the output layer."""
    if not isinstance(model, PersonalizedRewardModel):
        raise UsageError("Only preference heads can be exported.", "Name a reward model with heads: --reward-model")
    if model.adapter is not None:
        raise UsageError(
            "This reward model has its own adapter, which a change of the output layer cannot represent.",
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
    return model


def _save(adapter: PreferenceAdapter, policy: LanguageModel, metadata: Mapping[str, Any], out: Path) -> None:
    """Write an adapter as PEFT reads it, with its metadata and a model card."""
    head = policy.model.get_output_embeddings()
    layer = next(str(name) for name, module in policy.model.named_modules() if module is head)
    location, prefix = resolve_model(policy.name), f"base_model.model.{layer}"
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.rank,
        target_modules=[layer],
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=location,
        inference_mode=True,
    )
    tensors = {f"{prefix}.lora_A.weight": adapter.down, f"{prefix}.lora_B.weight": adapter.up}
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    front = {"library_name": "peft", "base_model": location, "tags": ["pad", "personalised-alignment", "lora"]}
    header = yaml.safe_dump(front, sort_keys=False)
    card = _CARD.format(front=header, preference=metadata["preference"], policy=location)
    with whole_files(out, last=METADATA) as scratch:
        config.save_pretrained(str(scratch))
        save_file(tensors, scratch / "adapter_model.safetensors", metadata={"format": "pt"})
        write_json(scratch / METADATA, metadata)
        (scratch / "README.md").write_text(card, encoding="utf-8")
