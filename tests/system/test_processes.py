"""Two processes do what one does: the same answers, report and reward model, also after parts were left behind."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pad_cli.models.checkpoint import save_reward_model
from pad_cli.models.checkpoint_files import ENCODER, HEADS
from pad_cli.models.language_model import LanguageModel
from pad_cli.recipe import ModelSettings
from pad_cli.system.processes import Processes
from pad_cli.system.runs import ResultLog, merge_parts
from tests.cli.test_commands import pad, refused
from tests.tiny import make_reward_model
from tests.training.conftest import TEXTS, make_rows, write_rows

PROMPTS = ("Hi", "How do I bake bread?", "Why?", "Tell me about the sea.", "A word on trees")
PREFERENCES = ("humorous", "not formal", "concise=2")


_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["pad_cli.cli.main", "pad_cli.evaluation.evaluate", "pad_cli.training.train", "pad_cli.training.lora"]
)
"""Processes that begin with what takes seconds to import."""


def run(arguments: list[str], directory: Path, processes: int, *, code: int = 0) -> str:
    """`pad` in a directory, as one process or as several with the environment that torchrun gives; its output."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = str(unused.getsockname()[1])
    environment = {"OMP_NUM_THREADS": "1", "PAD_HOME": str(directory / "home")}
    started = []
    for rank in range(processes):
        if processes > 1:
            environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        log = directory / f"log-{rank}"
        started.append(_FORKS.Process(target=_pad, args=(arguments, directory, log, dict(environment))))
        started[-1].start()
    for process in started:
        process.join()
    said = [(directory / f"log-{rank}").read_text(encoding="utf-8") for rank in range(processes)]
    assert {process.exitcode for process in started} == {code}, "\n".join(said)
    return said[0]


def _pad(arguments: list[str], directory: Path, log: Path, environment: dict[str, str]) -> None:
    """One of the processes: its stdout, or where it fails its stderr, goes to a file."""
    os.environ.update(environment)
    os.chdir(directory)
    torch.set_num_threads(1)
    result = pad(*arguments)
    log.write_text(result.stderr if result.exit_code else result.stdout, encoding="utf-8")
    sys.exit(result.exit_code)


def by_torchrun(arguments: list[str], directory: Path, processes: int) -> None:
    """`pad` in a directory, as a user starts several."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PAD_HOME": str(directory / "home")}
    command = [sys.executable, *launcher, "-m", "pad_cli", *arguments]
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def models(policy: LanguageModel, model_directory: Path, tmp_path: Path) -> dict[str, str]:
    saved = tmp_path / "reward-model"
    saved.mkdir()
    save_reward_model(make_reward_model(policy), saved, ModelSettings(model=str(model_directory), device="cpu"))
    return {"policy": str(model_directory), "reward_model": str(saved)}


def directories(tmp_path: Path) -> tuple[Path, Path]:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    return one, two


def write_prompts(path: Path, **keys: Any) -> Path:
    rows = [{"prompt": prompt, **keys} for prompt in PROMPTS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_two_processes_answer_a_file_as_one_does_and_go_on_where_parts_were_left(
    models: dict[str, str], tmp_path: Path
) -> None:
    one, two = directories(tmp_path)
    prompts = write_prompts(tmp_path / "prompts.jsonl", preference="humorous")
    command = ["generate", "--file", str(prompts), "--out", "answers.jsonl", "--policy", models["policy"]]
    command += ["--reward-model", models["reward_model"], "--temperature", "0.9", "--max-new-tokens", "12"]
    command += ["--set", "decoding.batch_size=1"]  # the same bytes: in other batches a near tie could fall otherwise
    run(command, one, 1)
    whole = (one / "answers.jsonl").read_text(encoding="utf-8")
    lines = whole.splitlines(keepends=True)
    (two / "answers.jsonl").write_text(lines[1], encoding="utf-8")
    (two / "answers.jsonl.part-00000").write_text(lines[3], encoding="utf-8")
    (two / "answers.jsonl.part-00005").write_text(lines[1] + lines[0] + lines[2][:20], encoding="utf-8")
    by_torchrun(command, two, 2)
    assert (two / "answers.jsonl").read_text(encoding="utf-8") == whole
    assert [path.name for path in two.iterdir() if path.is_file()] == ["answers.jsonl"]


def test_two_processes_evaluate_as_one_does(models: dict[str, str], tmp_path: Path) -> None:
    one, two = directories(tmp_path)
    prompts = write_prompts(tmp_path / "prompts.jsonl")
    recipe = {
        "kind": "eval",
        "output": "run",
        "policies": {"home": {"model": models["policy"], "device": "cpu"}},
        "reward_model": models["reward_model"],
        "methods": ["base", "pad", {"method": "best-of-n", "options": {"n": 2}}],
        "benchmarks": [{"benchmark": "jsonl", "options": {"path": str(prompts), "preferences": list(PREFERENCES)}}],
        "scorers": ["words", "repeated_4grams"],
        "decoding": {"max_new_tokens": 8, "batch_size": 1, "temperature": 0.7},  # as above
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    command = ["eval", str(tmp_path / "recipe.yaml")]
    assert run(command, two, 2) == run(command, one, 1)
    for name in ("report.json", "outputs.json"):
        assert (two / "run" / name).read_bytes() == (one / "run" / name).read_bytes(), name
    assert not list((two / "run").glob("*.part-*"))
    assert sorted(ResultLog(two / "run/answers.jsonl").done) == sorted(ResultLog(one / "run/answers.jsonl").done)


def train_recipe(
    tmp_path: Path, model_directory: Path, *stages: dict[str, Any], count: int = 1500, **keys: Any
) -> Path:
    recipe = {
        "kind": "train-rm",
        "output": "run",
        "backbone": {"model": str(model_directory), "device": "cpu"},
        "data": {
            "train": write_rows(tmp_path / "train.jsonl", make_rows(count, seed=1)),
            "validation": {"dev": write_rows(tmp_path / "dev.jsonl", make_rows(60, seed=2))},
            "texts": TEXTS,
        },
        "heads": {"rank": 2},
        "stages": list(stages),
        **keys,
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    return path


def test_two_processes_train_the_reward_model_that_one_does(model_directory: Path, tmp_path: Path) -> None:
    one, two = directories(tmp_path)
    recipe = train_recipe(
        tmp_path,
        model_directory,
        {"stage": "heads", "steps": 60, "batch_size": 16},
        {"stage": "encoder", "steps": 40, "batch_size": 16, "hidden_size": 16},
    )
    run(["train-rm", str(recipe)], one, 1)
    run(["train-rm", str(recipe)], two, 2)
    for name in (HEADS, ENCODER, "metrics.json"):
        assert (two / "run" / name).read_bytes() == (one / "run" / name).read_bytes(), name
    shards = [sorted(path.name for path in (each / "home/hidden-states").iterdir()) for each in (one, two)]
    assert len(shards[0]) > 1, "there is something to share"
    assert shards[0] == shards[1]


ADAPTER = {"stage": "adapter", "steps": 8, "batch_size": 4, "accumulation_steps": 2, "lora_rank": 2, "warmup_steps": 2}


def test_two_processes_train_the_lora_weights_that_one_does(model_directory: Path, tmp_path: Path) -> None:
    one, two = directories(tmp_path)
    heads = {"stage": "heads", "steps": 40, "batch_size": 16}
    measured = {"evaluate_every": 4, "learning_rate": 1e-3}
    recipe = train_recipe(tmp_path, model_directory, {**ADAPTER, **measured}, heads, count=120)
    run(["train-rm", str(recipe)], one, 1)
    run(["train-rm", str(recipe)], two, 2)
    for name in ("adapter_model.safetensors", HEADS):
        ours, theirs = (load_file(each / "run" / name) for each in (two, one))
        assert ours.keys() == theirs.keys()
        for key, tensor in theirs.items():
            torch.testing.assert_close(ours[key], tensor, atol=2e-4, rtol=2e-3)
            assert tensor.abs().max() > 0
    metrics = [json.loads((each / "run/metrics.json").read_text()) for each in (one, two)]
    assert metrics[0].keys() == metrics[1].keys()


def test_processes_that_cannot_share_a_batch_evenly_are_refused(model_directory: Path, tmp_path: Path) -> None:
    one, _ = directories(tmp_path)
    recipe = train_recipe(tmp_path, model_directory, {**ADAPTER, "batch_size": 3}, count=40)
    said = run(["train-rm", str(recipe)], one, 2, code=2)
    assert "2 processes cannot share 3 pairs evenly" in said
    assert not (one / "run" / HEADS).exists()


def test_what_processes_cannot_share_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "Only generate, eval, train-rm can be shared" in refused("sweep", "embedded-sweep")
    assert "Give --file and --out" in refused("generate", "Hi")


@pytest.mark.parametrize("count", [1, 2, 5])
def test_shares_are_each_item_once(count: int) -> None:
    everyone = [Processes(rank, count, rank) for rank in range(count)]
    assert sorted(item for each in everyone for item in each.share(range(17))) == list(range(17))
    for number in range(17):
        assert [number in each.share(range(17)) for each in everyone] == [each.owns(number) for each in everyone]
    assert [each.main for each in everyone] == [True] + [False] * (count - 1)


def test_merging_parts_keeps_every_row_once_and_is_done_once(tmp_path: Path) -> None:
    path = tmp_path / "log[1].jsonl"
    ResultLog(path).append({"a": {"line": 3}})
    ResultLog(path, "00001").append({"b": {"line": 1}})
    ResultLog(path, "00000").append({"c": {"line": 2}, "a": {"line": 3}})
    (tmp_path / "log1.jsonl.part-00000").write_text("somebody else's")
    merge_parts(path, lambda row: row["line"])
    assert list(ResultLog(path).done.items()) == [("b", {"line": 1}), ("c", {"line": 2}), ("a", {"line": 3})]
    before = path.read_bytes()
    merge_parts(path)
    assert path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["log1.jsonl.part-00000", "log[1].jsonl"]
