"""Preferences of an engine as adapters that other engines serve."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import UsageError, did_you_mean
from pad_cli.pairs import RowError, read_rows
from pad_cli.preference import LARGEST, Preference, with_floor
from pad_cli.server.export import PreferenceAdapter, check_adapter_output, preference_adapter, save_adapter
from pad_cli.system.progress import bar

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


def export_users(
    engine: PadEngine,
    table: Path,
    guidance_weight: float,
    out: Path | str,
    rank: int | None = None,
    *,
    overwrite: bool = False,
) -> tuple[int, list[str]]:
    """Write an adapter for each user of a table, as `pad learn --users` makes it: `out`/USER.

    Args:
        engine: as in `export_preference`, and so are the rest.
        table: JSON lines with `user`, `weights` (principle to signed weight) and, if it is known, `reward_model`.
        guidance_weight: how strongly.
        out: their directory; an adapter that is there is replaced.
        rank: of each adapter.
        overwrite: whether files may be replaced that are of no exported adapter.

    Returns:
        How many were written, and the users who have none because no principle has a weight: the base serves them.

    Raises:
        DataError: a line is wrong; nothing is written then.
        UsageError, StorageError: as in `export_preference`.
    """
    preferences: dict[str, Preference] = {}
    for row in read_rows(table):
        user = row.values.get("user")
        if not isinstance(user, str) or not _NAME.fullmatch(user) or user in preferences:
            reason = f"{user!r} is no name of a directory, or stands there twice"
            raise RowError(reason, field="user", hint="Letters, digits, -, _ and dots.").at(row)
        try:
            preferences[user] = _preference(engine, row.values)
        except RowError as problem:
            raise problem.at(row) from problem
    without = [user for user, preference in preferences.items() if not with_floor(preference, engine.always)]
    wanted = {user: preference for user, preference in preferences.items() if user not in without}
    for user in wanted:
        check_adapter_output(Path(out) / user, overwrite=overwrite)
    with bar("Exporting", total=len(wanted)) as progress:
        for user, preference in wanted.items():
            export_preference(engine, preference, guidance_weight, Path(out) / user, rank, overwrite=overwrite)
            progress.advance()
    return len(wanted), without


def _preference(engine: PadEngine, row: Mapping[str, Any]) -> Preference:
    model, weights = engine.reward_model, row.get("weights")
    if not isinstance(weights, Mapping):
        raise RowError("is no map of principles to weights", field="weights")
    if model is not None and row.get("reward_model", model.fingerprint) != model.fingerprint:
        raise RowError(
            f"belongs to another reward model than {model.fingerprint}",
            field="reward_model",
            hint="Learn it again: pad learn --users ... --reward-model ...",
        )
    for name, weight in weights.items():
        known = () if model is None else model.principles
        if name not in known:
            raise RowError("no such principle", field=name, hint=did_you_mean(name, known))
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not abs(weight) <= LARGEST:
            raise RowError(f"is no finite number up to {LARGEST:g}", field=name)
    return Preference({name: float(weight) for name, weight in weights.items() if weight}, {})


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

    Args:
        engine: policy and reward model; the policy must be the reward model's backbone.
        preference: what the user wants.
        guidance_weight: how strongly.
        out: a new directory, or one of an earlier export.
        rank: of the adapter; by default that of the heads times the number of principles with a weight.
        overwrite: whether files in `out` may be replaced that are of no exported adapter.

    Returns:
        What was written.

    Raises:
        UsageError: these models' guidance is no change of the output layer, there is none, or `out` holds other things.
        StorageError: it cannot be written.
    """
    if guidance_weight < 0 and engine.always:
        raise UsageError("A negative guidance weight turns `always` into its opposite.", "Give one of 0 or above.")
    check_adapter_output(Path(out), overwrite=overwrite)
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
