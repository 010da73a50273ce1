"""An engine's preference as an adapter that other engines serve (floor 6: it joins decoding and serving)."""

from __future__ import annotations

from pathlib import Path

from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import UsageError
from pad_cli.preference import Preference, with_floor
from pad_cli.serving.export import PreferenceAdapter, preference_adapter, save_adapter


def export_preference(
    engine: PadEngine, preference: Preference, guidance_weight: float, out: Path | str, rank: int | None = None
) -> PreferenceAdapter:
    """Write a preference as a LoRA adapter of the policy's output layer, the safety floor included.

    Args:
        engine: policy and reward model; the policy must be the reward model's backbone.
        preference: what the user wants.
        guidance_weight: how strongly.
        out: a new directory, or one of an earlier export.
        rank: of the adapter; by default that of the heads times the number of principles with a weight.

    Returns:
        What was written.

    Raises:
        UsageError: these models' guidance is no change of the output layer, there is none, or `out` holds other things.
        StorageError: it cannot be written.
    """
    if guidance_weight < 0 and engine.always:
        raise UsageError("A negative guidance weight turns `always` into its opposite.", "Give one of 0 or above.")
    preference = with_floor(preference, engine.always)
    weights = engine.preference_weights([preference])[0]
    model = engine.reward_model
    adapter = preference_adapter(engine.policy, model, weights, guidance_weight)
    assert model is not None  # preference_adapter refuses others
    adapter = adapter if rank is None else adapter.reduced(rank)
    facts = {
        "preference": preference.describe(),
        "weights": {name: value for name, value in zip(model.principles, weights.tolist(), strict=True) if value},
        "always": engine.always,
        "guidance_weight": guidance_weight,
        "calibration": model.calibration,
        "reward_model": model.fingerprint,
    }
    save_adapter(adapter, engine.policy, facts, Path(out))
    return adapter
