"""What methods cost: training before, and time while they answer. Kept apart from the report, which is the same from
run to run.

The shape of `costs.json`:

    [{"method", "policy", "models", "parameters", "training_seconds", "guidance_weight", "answers", "tokens",
      "seconds", "seconds_per_100_tokens"}]

`training_seconds` is null where nobody wrote it down, as for a reward model without its `report.json`; a reward model
stands at every method that uses it. `answers`, `tokens` and `seconds` are those of this run's answers, whichever
attempt made them; answers decoded together share their time alike. `seconds_per_100_tokens` is null where no token was
generated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pad_cli.evaluation.contract import Cost
from pad_cli.models.inspection import inspect_reward_model
from pad_cli.system.runs import ResultLog, write_json

COSTS = "costs.json"


class Answered(NamedTuple):
    """Who gave some answers."""

    method: str
    policy: str
    guidance_weight: float


def reward_model_cost(location: str) -> Cost:
    """What it cost to train a reward model, by its own account.

    Args:
        location: its directory, a registered source, or its id on the hub.

    Raises:
        CheckpointError: it is damaged.
    """
    found = inspect_reward_model(location)
    return Cost(sum(found.seconds.values()) if found.seconds else None, 1, sum(found.parameters.values()))


def write_costs(
    directory: Path,
    costs: Mapping[tuple[str, str], Cost],
    answers: Mapping[Answered, Iterable[str]],
    times: ResultLog,
) -> None:
    """Write `costs.json`.

    Args:
        directory: of the run.
        costs: (method, policy) to what was needed before it answered.
        answers: the keys of this run's answers; the log may hold those of an earlier recipe, too.
        times: what each answer took.

    Raises:
        StorageError: it cannot be written.
    """
    rows: list[dict[str, Any]] = []
    for who, keys in answers.items():
        taken = [times.done[key] for key in keys if key in times.done]
        cost = costs[who.method, who.policy]
        tokens, seconds = sum(row["tokens"] for row in taken), sum(row["seconds"] for row in taken)
        rows.append(
            {
                "method": who.method,
                "policy": who.policy,
                "models": cost.models,
                "parameters": cost.parameters,
                "training_seconds": None if cost.seconds is None else round(cost.seconds, 1),
                "guidance_weight": who.guidance_weight,
                "answers": len(taken),
                "tokens": tokens,
                "seconds": seconds,
                "seconds_per_100_tokens": 100 * seconds / tokens if tokens else None,
            }
        )
    write_json(directory / COSTS, rows)
