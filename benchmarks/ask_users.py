"""How many questions does `pad learn --ask` save? Simulated users of the embedded world answer chosen and random ones.

    python benchmarks/ask_users.py --out runs/ask-users

A user has signed weights of .5 to 1.5 on 2 to 4 principles, prefers of two generated answers the one whose principles,
as the world's exact scorers find them, add up to more, is wrong in 5 % of questions, and says "neither" where they add
up to the same. What a user says of a comparison is drawn beforehand, and the same however it is asked.
Accuracy is that of the learned weights on 200 fresh pairs on held-out topics. Questions are chosen as by
`pad learn me --ask`, or random, both from one pool.

Prints accuracy after each number of questions, and after how many chosen ones a user (median), the median and the mean
reach what 20 random ones give; writes them to results.json.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from learn_users import (  # the same users, answers and tests
    Weights,
    _accuracy,
    _comparisons,
    _draw_choices,
    _draw_user,
    _utility,
    _vector,
)

from pad_cli import DecodingSettings, PadEngine
from pad_cli.learning.question_session import Pool, Session, make_pool
from pad_cli.learning.user_weights import Features, choice_features
from pad_cli.models.checkpoint import load_reward_model
from pad_cli.records import as_messages
from pad_cli.world.grammar import Topic, World, load_world
from pad_cli.world.writing import write_prompt

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
    tests = [
        choice_features(model, _comparisons([_draw_choices(rng, world, unknown, truth, _TESTED)])) for truth in truths
    ]
    told = [_replies(world, pool, topics, truth, random.Random(f"{seed} {n}")) for n, truth in enumerate(truths)]
    found: dict[str, Any] = {"comparisons": len(pool.comparisons)}
    curves, asked = {}, {}
    for way in ("chosen", "random"):
        sessions = [
            _ask(model, pool, replies, test, way == "chosen", random.Random(f"{seed} {number}"))
            for number, (replies, test) in enumerate(zip(told, tests, strict=True))
        ]
        curves[way] = np.array([accuracies for accuracies, _ in sessions])
        asked[way] = [places for _, places in sessions]
    for way, curve in curves.items():
        found[way] = {
            "mean accuracy": curve.mean(0).round(3).tolist(),
            "median accuracy": np.median(curve, 0).round(3).tolist(),
        }
    for way, each in asked.items():
        ties = [sum(replies[place] is None for place in places) for replies, places in zip(told, each, strict=True)]
        found[f"neither, {way}"] = float(np.mean(ties))
    found[f"chosen questions to the accuracy of {_QUESTIONS} random ones"] = _reached(
        curves["chosen"], curves["random"]
    )
    (out / "results.json").write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found))


def _replies(
    world: World, pool: Pool, topics: dict[str, Topic], truth: Weights, rng: random.Random
) -> list[bool | None]:
    """What a user says of every comparison: is the first answer better? None for neither."""
    replies: list[bool | None] = []
    for comparison in pool.comparisons:
        topic, wrong = topics[comparison.prompt[-1]["content"]], rng.random() < _MISTAKES
        first, second = (_utility(world, text, topic, truth) for text in (comparison.first, comparison.second))
        replies.append(None if abs(first - second) < 1e-9 else (first > second) is not wrong)
    return replies


def _ask(
    model: Any, pool: Pool, replies: Sequence[bool | None], test: Features, chosen: bool, rng: random.Random
) -> tuple[list[float], list[int]]:
    """A session: accuracy after each question, .5 while nothing can be learned, and what was asked."""
    order = rng.sample(range(len(pool.comparisons)), len(pool.comparisons))
    accuracies: list[float] = []
    places: list[int] = []
    with tempfile.TemporaryDirectory() as scratch:
        session = Session(model, pool, Path(scratch) / "choices.jsonl")
        for place in order[:_QUESTIONS]:
            asked = session.next() if chosen else place
            if asked is not None:
                session.answer(asked, replies[asked])
                places.append(asked)
            accuracies.append(_accuracy(test, _vector(session.learned().weights, model)) if session.can_learn else 0.5)
    return accuracies, places


def _reached(chosen: Any, other: Any) -> dict[str, float]:
    """After how many questions the users' accuracies (U, N) are what they are at the end in another way."""
    goals = other[:, -1]
    return {
        "user's own, median": float(np.median([_first(row >= goal) for row, goal in zip(chosen, goals, strict=True)])),
        "median": _first(np.median(chosen, 0) >= np.median(goals)),
        "mean": _first(chosen.mean(0) >= goals.mean()),
    }


def _first(reached: Any) -> int:
    """The number of the first question at which it is reached; one more than there are if never."""
    return int(np.argmax(reached)) + 1 if np.any(reached) else len(reached) + 1


if __name__ == "__main__":
    typer.run(main)
