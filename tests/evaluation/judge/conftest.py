"""A finished evaluation on disk, as `pad eval` leaves it, and the network of this machine alone."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pad_cli.evaluation.contract import System
from pad_cli.evaluation.evaluate import ANSWERS
from pad_cli.evaluation.outputs import write_answered
from pad_cli.prompts import load_benchmark
from pad_cli.recipe import EvalRecipe
from pad_cli.system.runs import ResultLog

KEY = "sk-secret-of-the-test"
WriteRun = Callable[..., Path]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def loopback(this: socket.socket, address: Any) -> None:
        assert address[0] == "127.0.0.1", "a test tried to reach the network"
        connect(this, address)

    monkeypatch.setattr(socket.socket, "connect", loopback)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """Write a run in which `base` and `pad` answered prompts under one or more preferences.

    `base` and `pad` map a prompt to its answer; `pad` answers each prompt alike under every preference.
    """

    def write(
        base: Mapping[str, str],
        pad: Mapping[str, str],
        judge: Mapping[str, Any] | None = None,
        preferences: tuple[str, ...] = ("humorous",),
        directory: str = "run",
        **recipe: Any,
    ) -> Path:
        prompts = tmp_path / "prompts.jsonl"
        prompts.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in pad), encoding="utf-8")
        run = tmp_path / directory
        content = {
            "kind": "eval",
            "output": str(run),
            "policies": {"home": {"model": "none"}},
            "reward_model": "none",
            "benchmarks": [{"benchmark": "jsonl", "options": {"path": str(prompts), "preferences": list(preferences)}}],
            "scorers": ["words"],
            "resamples": 200,
            "judge": judge,
            **recipe,
        }
        run.mkdir(exist_ok=True)
        resolved = EvalRecipe.model_validate(content)
        (run / "recipe.json").write_text(json.dumps(resolved.model_dump()), encoding="utf-8")
        (run / "report.json").write_text("{}")
        rows = {}
        for item in load_benchmark(resolved.benchmarks[0]):
            prompt = item.prompt[0]["content"]
            if prompt in base:
                plain = answer_row("base", 0.0, item.id, prompt, [], base[prompt])
                rows.setdefault(f"base {prompt}", plain)
            rows[f"pad {item.id}"] = answer_row("pad", 1.0, item.id, prompt, list(item.preference), pad[prompt])
        ResultLog(run / ANSWERS).append(rows)
        write_keys(run, rows)
        return run

    return write


def write_keys(run: Path, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Say that a run's report is about these rows of its log."""
    keys: dict[System, list[str]] = {}
    for key, row in rows.items():
        keys.setdefault(System(row["method"], row["policy"], row["guidance_weight"]), []).append(key)
    write_answered(run, json.loads((run / "recipe.json").read_text(encoding="utf-8")), keys)


def answer_row(
    method: str, weight: float, item: str, prompt: str, preference: list[str], text: str, seed: int = 0
) -> dict[str, Any]:
    return {
        "method": method,
        "policy": "home",
        "guidance_weight": weight,
        "seed": seed,
        "item": item,
        "preference": preference,
        "prompt": [{"role": "user", "content": prompt}],
        "text": text,
        "finish_reason": "stop",
        "tokens": len(text),
    }
