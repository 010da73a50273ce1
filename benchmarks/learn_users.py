"""Is a user recovered from a handful of choices? Simulated users of the embedded world, and one of real text.

    python benchmarks/learn_users.py --out runs/learn-users
    python benchmarks/learn_users.py --out runs/learn-real --reward-model runs/gemma-270m \\
        --train dsp-train.jsonl --dev dsp-dev.jsonl

A user of the embedded world has signed weights of .5 to 1.5 on 2 to 4 principles, chooses between two answers the one
whose principles, as the world's exact scorers find them, add up to more, and is wrong in 5 % of choices. Accuracy is
that on 100 fresh pairs on held-out topics, without mistakes. True utility is what the principles that are present in a
generated answer (greedy, guidance weight 1) add up to; `scaled` are the learned weights brought to the norm of the
true ones.

On real text, where every answer was written for one preference, a user likes two of the preferences and dislikes the
others, chooses between answers to one instruction of the training file, and is tested on instructions of the other.
Every pair of liked preferences is one user.

Prints figures, and writes results.json.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from pad_cli import DecodingSettings, PadEngine
from pad_cli.learning.choices import Choice, Comparison
from pad_cli.learning.user_weights import Features, Learned, choice_features, learn_features, learn_user, learn_users
from pad_cli.models.checkpoint import load_reward_model
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.preference import Preference
from pad_cli.records import as_messages
from pad_cli.world.grammar import Topic, World, load_world
from pad_cli.world.scorers import present
from pad_cli.world.writing import draw_principles, write_answer, write_prompt

Weights = dict[str, float]
COUNTS = (5, 10, 20, 50)
_MISTAKES, _TESTED, _SHOWN = 0.05, 100, 0.25  # share of wrong choices; test pairs; rate of principles in an answer


def main(
    out: Annotated[Path, typer.Option(help="Directory of the results.")],
    reward_model: Annotated[str, typer.Option(help="A trained reward model.")] = "embedded/reward-model",
    users: Annotated[int, typer.Option(help="Simulated users.")] = 50,
    crowd: Annotated[int, typer.Option(help="Users that are learned at once from 20 choices each; 0: none.")] = 1000,
    prompts: Annotated[int, typer.Option(help="Prompts each user's text is generated for.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the users.")] = 0,
    train: Annotated[Path | None, typer.Option(help="JSONL of real training pairs.")] = None,
    dev: Annotated[Path | None, typer.Option(help="JSONL of real validation pairs.")] = None,
) -> None:
    """Simulate, learn, and measure."""
    out.mkdir(parents=True, exist_ok=True)
    model = load_reward_model(reward_model, dtype="float32" if train is None else "auto")
    assert isinstance(model, PersonalizedRewardModel)
    if train is not None and dev is not None:
        results = _real(model, _rows(train), _rows(dev), seed)
    else:
        results = _embedded(model, users, crowd, prompts, seed)
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


def _embedded(model: PersonalizedRewardModel, count: int, crowd: int, prompts: int, seed: int) -> dict[str, Any]:
    world, rng = load_world(), random.Random(seed)
    known, unknown = ([topic for topic in world.topics if topic.held_out is held] for held in (False, True))
    truths = [_draw_user(rng, model.principles) for _ in range(count)]
    choices = [_draw_choices(rng, world, known, truth, max(COUNTS), _MISTAKES) for truth in truths]
    tests = [_draw_choices(rng, world, unknown, truth, _TESTED) for truth in truths]
    features = _split(choice_features(model, _comparisons(choices)), max(COUNTS))
    tested = _split(choice_features(model, _comparisons(tests)), _TESTED)
    results: dict[str, Any] = {
        "true weights": _mean(
            [_accuracy(test, _vector(truth, model)) for test, truth in zip(tested, truths, strict=True)]
        )
    }
    learned: list[Learned] = []
    for size in COUNTS:
        told = [Features(each.slopes[:size], each.offsets[:size]) for each in features]
        found = [learn_features(model.principles, [True] * size, each, model.pair_moments) for each in told]
        learned = found if size == 20 else learned
        results[f"{size} choices"] = {
            "accuracy": _mean(
                [_accuracy(test, _vector(each.weights, model)) for test, each in zip(tested, found, strict=True)]
            ),
            "cross-validated": _mean([each.accuracy.value for each in found]),
        }
        print(size, results[f"{size} choices"], flush=True)
    started = time.monotonic()
    for each in choices[:5]:
        learn_user(model, each[:20])
    results["seconds a user, 20 choices"] = (time.monotonic() - started) / 5
    if crowd:
        every = [_draw_user(rng, model.principles) for _ in range(crowd)]
        told_all = {
            str(number): _draw_choices(rng, world, known, each, 20, _MISTAKES) for number, each in enumerate(every)
        }
        started = time.monotonic()
        learn_users(model, told_all)
        results[f"seconds for {crowd} users at once, 20 choices each"] = time.monotonic() - started
        print(results, flush=True)
    results["true utility of generated text"] = _generate(model, world, unknown, truths, learned, prompts, rng)
    return results


def _draw_user(rng: random.Random, principles: Sequence[str]) -> Weights:
    names = rng.sample(list(principles), rng.randint(2, 4))
    return {name: rng.uniform(0.5, 1.5) * rng.choice([-1, 1]) for name in names}


def _draw_choices(
    rng: random.Random, world: World, topics: Sequence[Topic], user: Weights, count: int, mistakes: float = 0.0
) -> list[Choice]:
    """Choices of a user between random answers that are not worth the same."""
    choices: list[Choice] = []
    while len(choices) < count:
        topic, intent = rng.choice(topics), rng.choice(world.intents)
        prompt = write_prompt(rng, topic, intent)
        answers = [
            write_answer(rng, world, topic, intent, draw_principles(rng, world, topic, _SHOWN)) for _ in range(2)
        ]
        worth = [_utility(world, answer, topic, user) for answer in answers]
        if math.isclose(*worth, abs_tol=1e-9):
            continue
        better = int(worth[1] > worth[0]) ^ (rng.random() < mistakes)
        choices.append(Choice(Comparison(as_messages(prompt), answers[better], answers[1 - better]), True))
    return choices


def _comparisons(users: Iterable[Sequence[Choice]]) -> list[Comparison]:
    return [choice.comparison for choices in users for choice in choices]


def _utility(world: World, text: str, topic: Topic, user: Weights) -> float:
    shown = present(world, text, topic)
    return sum(weight for name, weight in user.items() if shown[name])


def _generate(
    model: PersonalizedRewardModel,
    world: World,
    topics: Sequence[Topic],
    truths: Sequence[Weights],
    learned: Sequence[Learned],
    count: int,
    rng: random.Random,
) -> dict[str, float]:
    """Mean true utility of text under the true and the learned weights, and of plain text."""
    engine = PadEngine(model.backbone, model)
    settings = DecodingSettings(max_new_tokens=96, batch_size=200)
    asked = []
    for user in range(len(truths)):
        for _ in range(count):
            topic = rng.choice(topics)
            asked.append((user, topic, write_prompt(rng, topic, rng.choice(world.intents))))
    found = [dict(each.weights) for each in learned]
    ways: dict[str, list[Weights]] = {
        "plain": [{} for _ in truths],
        "true": list(truths),
        "learned": found,
        "learned, scaled": [_scaled(each, truth) for each, truth in zip(found, truths, strict=True)],
    }
    result = {}
    for way, weights in ways.items():
        preferences = [Preference({name: w for name, w in weights[user].items() if w}, {}) for user, *_ in asked]
        answers = engine.generate([prompt for *_, prompt in asked], preferences, settings)
        texts = zip(asked, answers, strict=True)
        result[way] = _mean([_utility(world, answer.text, topic, truths[user]) for (user, topic, _), answer in texts])
        print(way, result[way], flush=True)
    return result


def _scaled(found: Weights, truth: Weights) -> Weights:
    norm = math.hypot(*found.values())
    return {name: weight * math.hypot(*truth.values()) / norm for name, weight in found.items()} if norm else found


def _real(
    model: PersonalizedRewardModel, train: list[dict[str, str]], dev: list[dict[str, str]], seed: int
) -> dict[str, Any]:
    """Accuracy on held-out instructions of users who like two of the preferences, from 20 choices each."""
    rng = random.Random(seed)
    results: dict[str, Any] = {}
    pairs, tests = _contrasts(train), _contrasts(dev)
    told_pairs = {liked: rng.sample(pairs, len(pairs)) for liked in itertools.combinations(model.principles, 2)}
    told = {
        liked: [_choose(pair, liked) for pair in each if _differs(pair, liked)][:20]
        for liked, each in told_pairs.items()
    }
    features = _split(choice_features(model, _comparisons(told.values())), 20)
    tested = choice_features(
        model, [Comparison(as_messages(prompt), first, second) for prompt, (_, first), (_, second) in tests]
    )
    learned = [learn_features(model.principles, [True] * 20, part, model.pair_moments) for part in features]
    for liked, found in zip(told, learned, strict=True):
        kept = [row for row, pair in enumerate(tests) if _differs(pair, liked)]
        signs = np.array([1.0 if tests[row][1][0] in liked else -1.0 for row in kept])
        part = Features(tested.slopes[kept] * signs[:, None], tested.offsets[kept] * signs)
        truth = {name: 1.0 if name in liked else -1.0 for name in model.principles}
        results[" + ".join(liked)] = {
            "true weights": _accuracy(part, _vector(truth, model)),
            "20 choices": _accuracy(part, _vector(found.weights, model)),
            "pairs": len(kept),
            "found": found.summary,
        }
    for key in ("true weights", "20 choices"):
        results[key] = _mean([each[key] for each in results.values() if isinstance(each, dict)])
    return results


_Contrast = tuple[str, tuple[str, str], tuple[str, str]]
"""An instruction, and two (preference, answer)."""


def _contrasts(rows: list[dict[str, str]]) -> list[_Contrast]:
    """All pairs of answers to one instruction that were written for different preferences."""
    answers: dict[str, dict[str, str]] = {}
    for row in rows:
        answers.setdefault(row["prompt"], {})[row["preference"]] = row["chosen"]
    return [(prompt, *pair) for prompt, each in answers.items() for pair in itertools.combinations(each.items(), 2)]


def _differs(pair: _Contrast, liked: Sequence[str]) -> bool:
    return (pair[1][0] in liked) is not (pair[2][0] in liked)


def _choose(pair: _Contrast, liked: Sequence[str]) -> Choice:
    prompt, (name, first), (_, second) = pair
    answers = (first, second) if name in liked else (second, first)
    return Choice(Comparison(as_messages(prompt), *answers), True)


def _rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _split(features: Features, size: int) -> list[Features]:
    """Features of consecutive users with `size` choices each."""
    starts = range(0, len(features.offsets), size)
    return [Features(features.slopes[n : n + size], features.offsets[n : n + size]) for n in starts]


def _accuracy(features: Features, weights: Sequence[float]) -> float:
    """Share of pairs that weights, in the order of the principles, put in the right order."""
    return float(np.mean(features.offsets + features.slopes @ np.array(weights) > 0))


def _vector(weights: Mapping[str, float], model: PersonalizedRewardModel) -> list[float]:
    return [weights.get(name, 0.0) for name in model.principles]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    typer.run(main)
