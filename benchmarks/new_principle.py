"""What does a new principle learn from twenty pairs? Pair accuracy and steering on topics that no example is about.

    python benchmarks/new_principle.py --out runs/new-principle

In the embedded world `inquisitive` is the principle that the reward model was not trained on. Examples are about known
topics: two answers to one prompt, of which one is inquisitive; other principles come and go in both by chance
(`--style independent`), or are the same in both (`--style minimal`). For each seed of the examples a new version is
trained, and measured on held-out topics: pairs, answers to the prompts of the benchmark by name and in words that no
paraphrase used, and the answers under every old principle beside the old version's.

Prints a table, and writes results.json and the versions.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pad_cli import DecodingSettings, PadEngine
from pad_cli.learning.new_principle import add_principle
from pad_cli.models.checkpoint import load_reward_model
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.world.grammar import load_world, split_sentences
from pad_cli.world.scorers import present
from pad_cli.world.writing import draw_principles, load_benchmark, paraphrases, write_answer, write_prompt

_NAME = "inquisitive"
_RATE = 0.25  # how often another principle shows in an answer
_TEST_SEED = 20_001
_TEST_PAIRS = 400


def main(
    out: Annotated[Path, typer.Option(help="Directory of the results.")],
    seeds: Annotated[int, typer.Option(help="How many sets of examples.")] = 5,
    examples: Annotated[int, typer.Option(help="Pairs in each.")] = 20,
    style: Annotated[str, typer.Option(help="independent or minimal: how the two answers of an example differ.")] = (
        "independent"
    ),
    prompts: Annotated[int, typer.Option(help="Prompts for the new principle.")] = 200,
    others: Annotated[int, typer.Option(help="Prompts for each of the others.")] = 40,
    weights: Annotated[str, typer.Option(help="Guidance weights.")] = "1,1.5",
) -> None:
    """Write examples, train, and measure."""
    out.mkdir(parents=True, exist_ok=True)
    world, levels = load_world(), [float(weight) for weight in weights.split(",")]
    old = load_reward_model("embedded/reward-model")
    assert isinstance(old, PersonalizedRewardModel)
    unchanged = {
        name: _hits(PadEngine(old.backbone, old), name, [name], others, levels[0])[0] for name in old.principles
    }
    results = []
    for seed in range(seeds):
        path = out / f"examples-{seed}.jsonl"
        rows = _pairs(seed, examples, style, held_out=False)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        texts = paraphrases(world, world.principles[_NAME], held_out=False)
        started, processor_started = time.monotonic(), time.process_time()
        directory = out / f"version-{style}-{examples}-{seed}"
        added = add_principle(_NAME, path, "embedded/reward-model", directory, texts)
        seconds, processor = time.monotonic() - started, time.process_time() - processor_started
        new = load_reward_model(str(directory), backbone=old.backbone)
        assert isinstance(new, PersonalizedRewardModel)
        engine = PadEngine(new.backbone, new)
        unseen = [f"text:{text}" for text in paraphrases(world, world.principles[_NAME], held_out=True)]
        results.append(
            {
                "seed": seed,
                "cross_validated": added.pair_accuracy.value,
                "pair_accuracy": _pair_accuracy(new, style),
                "seconds": round(seconds, 2),
                "processor_seconds": round(processor, 2),
                "by_name": {level: _hits(engine, _NAME, [_NAME], prompts, level) for level in levels},
                "in_words": {level: _hits(engine, _NAME, unseen, prompts, level) for level in levels},
                "others": {
                    name: _hits(engine, name, [name], others, levels[0])[0] - before
                    for name, before in unchanged.items()
                },
            }
        )
        (out / f"results-{style}-{examples}.json").write_text(json.dumps(results, indent=2) + "\n")
    _show(results, levels)


def _pairs(seed: int, count: int, style: str, *, held_out: bool) -> list[dict[str, str]]:
    world, rng = load_world(), random.Random(seed)
    topics = [topic for topic in world.topics if topic.held_out == held_out]
    rows = []
    for _ in range(count):
        topic, intent = rng.choice(topics), rng.choice(world.intents)
        prompt = write_prompt(rng, topic, intent)
        shown = draw_principles(rng, world, topic, _RATE) - {_NAME}
        also = shown if style == "minimal" else draw_principles(rng, world, topic, _RATE) - {_NAME}
        chosen = write_answer(rng, world, topic, intent, shown | {_NAME})
        rows.append({"prompt": prompt, "chosen": chosen, "rejected": write_answer(rng, world, topic, intent, also)})
    return rows


def _pair_accuracy(model: PersonalizedRewardModel, style: str) -> float:
    """Share of fresh pairs whose inquisitive answer has the higher exact reward."""
    preference, won = model.preference([_NAME]), 0
    for row in _pairs(_TEST_SEED, _TEST_PAIRS, style, held_out=True):
        prompt = ({"role": "user", "content": row["prompt"]},)
        chosen, rejected = (model.token_rewards(prompt, row[key], preference).sum() for key in ("chosen", "rejected"))
        won += bool(chosen > rejected)
    return won / _TEST_PAIRS


def _hits(engine: PadEngine, name: str, specs: Sequence[str], count: int, weight: float) -> tuple[float, float]:
    """Share of greedy answers in which a principle is present, and share of their sentences that parse."""
    world = load_world()
    items = load_benchmark(prompts=count, groups=["untrained"])[:count]
    preferences = [engine.preference([specs[number % len(specs)]]) for number in range(len(items))]
    settings = DecodingSettings(max_new_tokens=96, batch_size=200, guidance_weight=weight)
    answers = engine.generate([item.prompt for item in items], preferences, settings)
    texts = [answer.text for answer in answers]
    shown = [
        present(world, text, world.topic(item.facts["topic"]))[name] for item, text in zip(items, texts, strict=True)
    ]
    sentences = [world.parse(part) is not None for text in texts for part in split_sentences(text)]
    return sum(shown) / len(shown), round(sum(sentences) / len(sentences), 4)


def _show(results: list[dict[str, Any]], levels: Sequence[float]) -> None:
    table = Table("seed", "cross-validated", "pair accuracy", "seconds (processor)")
    for kind in ("by name", "in words"):
        for level in levels:
            table.add_column(f"{kind}, weight {level:g}: hit, parses")
    table.add_column("largest change of another's hit rate")
    for row in results:
        hits = [f"{hit:.3f} {parses:.3f}" for kind in ("by_name", "in_words") for hit, parses in row[kind].values()]
        seconds = f"{row['seconds']:.1f} ({row['processor_seconds']:.1f})"
        figures = [f"{row[key]:.3f}" for key in ("cross_validated", "pair_accuracy")]
        change = max(row["others"].values(), key=abs)
        table.add_row(str(row["seed"]), *figures, seconds, *hits, f"{change:+.3f}")
    Console(width=150).print(table)


if __name__ == "__main__":
    typer.run(main)
