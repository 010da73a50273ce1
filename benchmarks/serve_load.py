"""How `pad serve` bears many clients: throughput, latency, memory, and whether every answer is the engine's own.

Two servers are started on this machine, one that decodes up to `--max-batch` answers together and one that decodes one
at a time, and take turns. Then the first is put under load for `--seconds`. Every answer is compared with that of the
offline engine for the same prompt, preference and seed. Each client asks, waits for the whole answer, and asks again.

    python serve_load.py --clients 32 --seconds 120
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import openai
import psutil

from pad_cli import DecodingSettings, PadEngine, read_recipe
from pad_cli.recipe import GenerateRecipe

TOPICS = ("chess", "sailing", "photography", "pottery", "baking", "hiking", "painting", "cycling")
QUESTIONS = ("How do I start with {}?", "What is {} about?", "Why should I try {}?")
PREFERENCES = ("humorous", "formal", "concise", "creative", "humorous+concise=0.5", "not formal")
SEEDS = 8
ROUNDS = 3
ROUND_SECONDS = 8.0


@dataclass(frozen=True)
class Case:
    """What is asked, and what must come back."""

    prompt: str
    preference: str
    seed: int
    temperature: float
    stream: bool


@dataclass
class Load:
    """What came of putting a server under load."""

    seconds: float
    latencies: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    answers: dict[Case, set[str]] = field(default_factory=dict)

    @property
    def throughput(self) -> float:
        """New tokens a second."""
        return self.tokens / self.seconds

    def percentile(self, share: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def make_cases(temperature: float) -> list[Case]:
    prompts = [question.format(topic) for topic in TOPICS for question in QUESTIONS]
    cases = [(p, w, s) for p in prompts for w in PREFERENCES for s in (range(SEEDS) if temperature else [0])]
    return [Case(p, w, s, temperature, number % 4 == 0) for number, (p, w, s) in enumerate(cases)]


def offline_answers(recipe: GenerateRecipe, cases: list[Case]) -> dict[Case, str]:
    """The engine's own answer to every case, each decoded by itself as one request would be."""
    engine = PadEngine.from_recipe(recipe)
    expected: dict[Case, str] = {}
    for case in cases:
        changed = {"seed": case.seed, "temperature": case.temperature}
        settings = DecodingSettings.model_validate({**recipe.decoding.model_dump(), **changed})
        preference = engine.preference(case.preference.split("+"))
        expected[case] = engine.generate([case.prompt], [preference], settings)[0].text
    return expected


@contextlib.contextmanager
def started(*options: str) -> Iterator[tuple[str, int]]:
    """A server as a user starts it; gives its address and its process id."""
    command = [sys.executable, "-m", "pad_cli", "serve", "--port", "0", *options]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)
    assert server.stderr is not None
    try:
        for line in server.stderr:
            if found := re.search(r"at (http://\S+)/v1", line):
                break
            print(line, end="", file=sys.stderr)
        else:
            raise SystemExit("the server did not start")
        threading.Thread(target=server.stderr.read, daemon=True).start()
        yield found[1], server.pid
    finally:
        server.terminate()
        server.wait(60)


def resident(server: int) -> float:
    """Resident memory of a server, by its process id, in MB."""
    return float(psutil.Process(server).memory_info().rss) / 1e6


async def put_under_load(url: str, cases: list[Case], clients: int, seconds: float) -> Load:
    start = time.monotonic()
    load = Load(seconds)
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        await asyncio.gather(
            *(_client(client, random.Random(number), cases, start + seconds, load) for number in range(clients))
        )
    load.seconds = time.monotonic() - start
    return load


async def _client(client: openai.AsyncOpenAI, chance: random.Random, cases: list[Case], end: float, load: Load) -> None:
    while (begun := time.monotonic()) < end:
        case = chance.choice(cases)
        try:
            text, tokens = await _ask(client, case)
        except openai.APIStatusError as error:
            load.outcomes[str(error.status_code)] += 1
            await asyncio.sleep(0.05)
            continue
        except openai.APIError as error:
            load.outcomes[type(error).__name__] += 1
            continue
        load.outcomes["200"] += 1
        load.latencies.append(time.monotonic() - begun)
        load.tokens += tokens
        load.answers.setdefault(case, set()).add(text)


async def _ask(client: openai.AsyncOpenAI, case: Case) -> tuple[str, int]:
    asked: dict[str, Any] = {
        "model": f"pad/{case.preference}",
        "messages": [{"role": "user", "content": case.prompt}],
        "seed": case.seed,
        "temperature": case.temperature,
    }
    if not case.stream:
        answer = await client.chat.completions.create(**asked)
        return answer.choices[0].message.content, answer.usage.completion_tokens
    text, tokens = "", 0
    async for chunk in await client.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    ):
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        tokens = chunk.usage.completion_tokens if chunk.usage else tokens
    return text, tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="embedded-generate")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--max-batch", type=int, default=32)
    parser.add_argument("--max-queue", type=int, default=256)
    parser.add_argument("--temperature", type=float, default=0.7)
    asked = parser.parse_args()
    recipe = read_recipe(asked.recipe)
    assert isinstance(recipe, GenerateRecipe)
    cases = make_cases(asked.temperature)
    expected = offline_answers(recipe, cases)
    together = ["--recipe", asked.recipe, "--max-batch", str(asked.max_batch), "--max-queue", str(asked.max_queue)]
    single = ["--recipe", asked.recipe, "--max-batch", "1", "--max-queue", str(asked.max_queue)]
    found: dict[str, Any] = {"clients": asked.clients, "max_batch": asked.max_batch, "seconds": asked.seconds}
    with started(*together) as (url, _), started(*single) as (one, _):
        ratios, both = [], []
        for _ in range(ROUNDS):
            loads = [asyncio.run(put_under_load(each, cases, asked.clients, ROUND_SECONDS)) for each in (url, one)]
            both += loads
            ratios.append(loads[0].throughput / loads[1].throughput)
        found["throughput_together_over_one_at_a_time"] = {
            "median": round(median(ratios), 2),
            "rounds": [round(ratio, 2) for ratio in ratios],
            "tokens_per_second": [round(median(load.throughput for load in both[place::2])) for place in (0, 1)],
        }
    with started(*together) as (url, server):
        before = resident(server)
        asyncio.run(put_under_load(url, cases, asked.clients, min(20, asked.seconds)))
        warm = resident(server)
        load = asyncio.run(put_under_load(url, cases, asked.clients, asked.seconds))
        after = resident(server)
    wrong = sum(texts != {expected[case]} for case, texts in load.answers.items())
    found |= {
        "requests": sum(load.outcomes.values()),
        "outcomes": dict(load.outcomes),
        "requests_per_second": round(load.outcomes["200"] / load.seconds, 1),
        "tokens_per_second": round(load.throughput),
        "latency_seconds": {name: round(load.percentile(share), 3) for name, share in (("p50", 0.5), ("p99", 0.99))},
        "cases": len(load.answers),
        "cases_unlike_the_engine": wrong,
        "memory_mb": {"idle": round(before), "after_20_s": round(warm), "at_the_end": round(after)},
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
