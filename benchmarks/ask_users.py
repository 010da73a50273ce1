"""How many questions does `pad learn --ask` save? Simulated users of the embedded world answer chosen and random ones.

    python benchmarks/ask_users.py --out runs/ask-users

A user has signed weights of .5 to 1.5 on 2 to 4 principles, prefers of two generated answers the one whose principles,
as the world's exact scorers find them, add up to more, is wrong in 5 % of questions, and says "neither" where they add
up to the same. Accuracy is that of the learned weights on 200 fresh pairs on held-out topics. Random questions come
from the same pool, and are learned from in the same way.

Prints mean and median accuracy after each number of questions, and after how many chosen ones a user (median) and the
mean reach the accuracy of random ones; writes them to results.json.
"""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from learn_users import (  # the same users, answers and tests
    Weights,
    _accuracy,
    _draw_choices,
    _draw_user,
    _utility,
    _vector,
)

from pad_cli import DecodingSettings, PadEngine
from pad_cli.learning.comparisons import Pool, make_pool
from pad_cli.learning.features import Features, choice_features
from pad_cli.learning.session import Question, Session
from pad_cli.models.checkpoint import load_reward_model
from pad_cli.records import as_messages
from pad_cli.world.grammar import Topic, World, load_world
from pad_cli.world.text import write_prompt

_QUESTIONS, _TESTED, _MISTAKES = 20, 200, 0.05


def main(
    out: Annotated[Path, typer.Option(help="Directory of the results.")],
    users: Annotated[int, typer.Option(help="Simulated users.")] = 50,
    prompts: Annotated[int, typer.Option(help="Prompts of the pool.")] = 40,
    seed: Annotated[int, typer.Option(help="Of users and pool.")] = 0,
) -> None:
    """Simulate, ask, and measure."""
    out.mkdir(parents=True, exist_ok=True)
    rng, world = random.Random(seed), load_world()
    model = load_reward_model("embedded/reward-model", dtype="float32")
    known, unknown = ([topic for topic in world.topics if topic.held_out is held] for held in (False, True))
    topics: dict[str, Topic] = {}
    while len(topics) < prompts:
        topic = rng.choice(known)
        topics[write_prompt(rng, topic, rng.choice(world.intents))] = topic
    engine = PadEngine(model.backbone, model)
    pool = make_pool(engine, [as_messages(prompt) for prompt in topics], DecodingSettings(batch_size=200), seed=seed)
    truths = [_draw_user(rng, model.principles) for _ in range(users)]
    tests = [choice_features(model, _draw_choices(rng, world, unknown, truth, _TESTED)) for truth in truths]
    found: dict[str, Any] = {"comparisons": len(pool.comparisons)}
    curves = {}
    for kind in ("chosen", "random"):
        asked = [
            _ask(model, pool, world, topics, truth, test, kind == "chosen", random.Random(f"{seed} {number}"))
            for number, (truth, test) in enumerate(zip(truths, tests, strict=True))
        ]
        curves[kind] = np.array([accuracies for accuracies, _ in asked])
        found[kind] = {
            "mean accuracy": curves[kind].mean(0).round(3).tolist(),
            "median accuracy": np.median(curves[kind], 0).round(3).tolist(),
            "neither": float(np.mean([ties for _, ties in asked])),
        }
    target, chosen = curves["random"][:, -1], curves["chosen"]
    found["chosen questions to the user's own accuracy after 20 random ones, median"] = float(
        np.median([_first(row >= goal) for row, goal in zip(chosen, target, strict=True)])
    )
    found["chosen questions to the mean accuracy after 20 random ones"] = _first(chosen.mean(0) >= target.mean())
    found["chosen questions to the median accuracy after 20 random ones"] = _first(
        np.median(chosen, 0) >= np.median(target)
    )
    (out / "results.json").write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found))


def _ask(
    model: Any,
    pool: Pool,
    world: World,
    topics: dict[str, Topic],
    truth: Weights,
    test: Features,
    chosen: bool,
    rng: random.Random,
) -> tuple[list[float], int]:
    """Accuracy after each question, and how often neither answer was better; .5 while nothing can be learned."""
    accuracies, ties = [], 0
    order = rng.sample(range(len(pool.comparisons)), len(pool.comparisons))
    with tempfile.TemporaryDirectory() as scratch:
        session = Session(model, pool, Path(scratch) / "choices.jsonl")
        for number in range(_QUESTIONS):
            question = (
                session.next() if chosen else Question(number + 1, order[number], pool.comparisons[order[number]], 0.0)
            )
            if question is not None:
                first = _reply(world, question, topics, truth, rng)
                ties += first is None
                session.answer(question, first)
            right = _accuracy(test, _vector(session.learned().weights, model)) if session.can_learn else 0.5
            accuracies.append(right)
    return accuracies, ties


def _reply(
    world: World, question: Question, topics: dict[str, Topic], truth: Weights, rng: random.Random
) -> bool | None:
    comparison = question.comparison
    topic = topics[comparison.prompt[-1]["content"]]
    first, second = (_utility(world, text, topic, truth) for text in (comparison.first, comparison.second))
    if abs(first - second) < 1e-9:
        return None
    return (first > second) is not (rng.random() < _MISTAKES)


def _first(reached: Any) -> int:
    """The number of the first question at which it is reached; one more than there are if never."""
    return int(np.argmax(reached)) + 1 if np.any(reached) else len(reached) + 1


if __name__ == "__main__":
    typer.run(main)
