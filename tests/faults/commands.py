"""The long commands, each small enough to be run many times, and what they leave behind."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pad_cli.models.checkpoint import save_reward_model
from pad_cli.models.language_model import LanguageModel
from pad_cli.recipe import ModelSettings
from tests.faults.process import Ended, Fault, Running
from tests.tiny import make_reward_model
from tests.training.conftest import TEXTS, make_rows, write_rows

NAMES = ("generate", "eval", "sweep", "reproduce", "train-rm", "learn")


@dataclass(frozen=True)
class Place:
    """Where a command works.

    Attributes:
        run: its working directory; all that it writes lies below.
        logs: an existing directory for what it says.
    """

    run: Path
    logs: Path

    @property
    def home(self) -> Path:
        """Its `PAD_HOME`."""
        return self.run / "home"


@dataclass(frozen=True)
class Command:
    """A long command.

    Attributes:
        name: of these tests.
        arguments: of `pad`.
        timed: names of files that hold how long something took; the rest is the same from run to run.
        replies: what it is told, one to each line of its log; those that the log holds are not repeated.
    """

    name: str
    arguments: tuple[str, ...]
    timed: tuple[str, ...] = ()
    replies: tuple[str, ...] = ()

    def start(self, place: Place, *faults: Fault) -> Running:
        answered = len(self.finished(place)) if self.replies else 0
        told = "".join(f"{reply}\n" for reply in self.replies[answered:])
        return Running(self.arguments, place.run, place.home, place.logs, told, list(faults))

    def carry_out(self, place: Place, *faults: Fault) -> Ended:
        return self.start(place, *faults).wait()

    def finished(self, place: Place) -> set[bytes]:
        """The items that its logs hold: whole lines."""
        lines = [line for path in logs_of(place) for line in path.read_bytes().splitlines(keepends=True)]
        return {line for line in lines if line.endswith(b"\n")}

    def results(self, place: Place) -> dict[str, bytes]:
        """Everything that it has left behind, by path, but for locks and files with times."""
        return {
            str(path.relative_to(place.run)): _undated(path.read_bytes()).replace(bytes(place.run), b"")
            for path in sorted(place.run.rglob("*"))
            if path.is_file() and path.name not in self.timed and path.parent != place.home / "locks"
        }


@dataclass(frozen=True)
class Undisturbed:
    """What a command gives when nothing disturbs it.

    Attributes:
        results: see `Command.results`.
        changes: how many times its process changes a file.
        sizes: of all files that it leaves, bytes.
    """

    results: dict[str, bytes]
    changes: int
    sizes: tuple[int, ...]


def logs_of(place: Place) -> list[Path]:
    """The JSONL files that a command has appended to; what took how long is no result."""
    return [path for path in sorted(place.run.rglob("*.jsonl")) if path.name != "times.jsonl"]


def _undated(content: bytes) -> bytes:
    """Without the day on which a profile was learned."""
    return b"".join(line for line in content.splitlines(keepends=True) if not line.startswith(b"created: "))


def make_commands(directory: Path, policy: LanguageModel) -> dict[str, Command]:
    """All of them, and what they read, in a directory."""
    model, reward_model = directory / "model", directory / "reward-model"
    reward_model.mkdir(parents=True)
    policy.model.save_pretrained(model)
    policy.tokenizer.save_pretrained(model)
    settings = ModelSettings(model=str(model), device="cpu")
    save_reward_model(make_reward_model(policy), reward_model, settings)
    prompts = directory / "prompts.jsonl"
    prompts.write_text(
        "".join(json.dumps({"prompt": f"Tell me of {n}"}) + "\n" for n in range(9)),
        encoding="utf-8",
    )
    steered = ("--policy", str(model), "--reward-model", str(reward_model))
    decoding = {"max_new_tokens": 8, "batch_size": 3, "temperature": 0.8}
    overrides = [f"decoding.{key}={value}" for key, value in decoding.items()]
    sampled = [*steered, *(part for override in overrides for part in ("--set", override))]
    benchmark = {"benchmark": "jsonl", "options": {"path": str(prompts), "preferences": ["humorous", "not formal"]}}
    evaluation: dict[str, Any] = {
        "policies": {"home": settings.model_dump()},
        "reward_model": str(reward_model),
        "benchmarks": [benchmark],
        "scorers": ["words", "repeated_4grams"],
        "decoding": decoding,
    }
    pairs = [{**row, "preference": _RENAMED[row["preference"]]} for row in make_rows(24, seed=1)]
    dpo = {
        "method": "dpo",
        "options": {
            "data": {"train": write_rows(directory / "dpo.jsonl", pairs)},
            "steps": 4,
            "batch_size": 2,
            "lora_rank": 2,
        },
    }
    tables = {
        "main": {"question": "Who wins?", "runs": {"one": evaluation, "two": {**evaluation, "methods": ["base"]}}},
        "weights": {"question": "How strong?", "runs": {"high": {**evaluation, "guidance_weights": [4.0]}}},
    }
    sweep = {
        "policy": settings.model_dump(),
        "reward_model": str(reward_model),
        "benchmark": benchmark,
        "prompts": 4,
        "objectives": {"humorous": "words", "formal": "repeated_4grams"},
        "weight_steps": 2,
        "candidates": [2, 5],
        "decoding": decoding,
    }
    training = {
        "backbone": settings.model_dump(),
        "data": {
            "train": write_rows(directory / "train.jsonl", make_rows(320, seed=1)),
            "validation": {"dev": write_rows(directory / "dev.jsonl", make_rows(20, seed=2))},
            "texts": TEXTS,
        },
        "heads": {"rank": 2},
        "stages": [
            {"stage": "adapter", "steps": 6, "batch_size": 2, "lora_rank": 2, "save_every": 2, "warmup_steps": 1},
            {"stage": "heads", "steps": 80, "batch_size": 8, "dropout": 0.2, "evaluate_every": 20},
            {"stage": "encoder", "steps": 40, "batch_size": 8, "hidden_size": 8},
        ],
    }

    def recipe(kind: str, content: dict[str, Any]) -> tuple[str, ...]:
        path = directory / f"{kind}.yaml"
        path.write_text(json.dumps({"kind": kind, "output": "run", **content}), encoding="utf-8")  # JSON is YAML
        return kind, str(path)

    costs = ("times.jsonl", "costs.json", "cost.json")
    reports, pages = ("report.html", "report.md"), ("reproduce.html", "reproduce.md")
    made = [
        Command(
            "generate",
            ("generate", "--file", str(prompts), "--out", "answers.jsonl", "-p", "humorous", *sampled),
        ),
        Command("eval", recipe("eval", {**evaluation, "methods": ["base", "pad", dpo]}), (*costs, *reports)),
        Command("sweep", recipe("sweep", sweep), costs),
        Command("reproduce", recipe("reproduce", {"tables": tables}), (*costs, *reports, *pages)),
        Command("train-rm", recipe("train-rm", training), ("report.json", *reports, "README.md")),
        Command(
            "learn",
            ("learn", "me", "--ask", "--prompts", str(prompts), *sampled),
            replies=("1", "2", "1", "n", "2", "1", "1", "2", "q"),
        ),
    ]
    assert tuple(command.name for command in made) == NAMES
    return {command.name: command for command in made}


_RENAMED = {"exes": "humorous", "whys": "formal"}
