"""What is drawn through drafts follows the guided distribution, exactly."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import torch

from pad_cli.decoding.decode import Sampler
from pad_cli.decoding.engine import PadEngine
from pad_cli.recipe import DecodingSettings
from tests.decoding.drafters import disturbed, forwards
from tests.tiny import make_language_model, make_reward_model
from tests.token_prompts import generate_all, score_candidates

PROMPT = [5, 40, 77, 90, 31]


def test_sampled_tokens_follow_the_guided_distribution(byte_tokenizer: Any) -> None:
    """Second and third tokens of 3000 answers against exact chances; what the drafter wants would not pass."""
    policy = make_language_model(byte_tokenizer, seed=3)
    engine = PadEngine(policy, make_reward_model(disturbed(policy, 0.03)))
    assert engine.reward_model is not None
    how = DecodingSettings(
        max_new_tokens=3,
        temperature=1.0,
        candidates=4,
        draft_tokens=2,
        batch_size=3000,
        reward_ngram=0,
        path="separate",
    )
    chances = exact_chances(engine, how)
    with forwards(policy) as read:
        drawn = draw(engine, how)
    assert 4200 < sum(rows for rows, _ in read[1:]) < 8400, "some drafts should be right, and some wrong"
    impostor = draw(
        PadEngine(engine.reward_model.backbone, engine.reward_model), how.model_copy(update={"draft_tokens": 0})
    )
    for place in (1, 2):
        assert surprise(chances[place], [answer[place] for answer in drawn]) < 4
        assert surprise(chances[place], [answer[place] for answer in impostor]) > 10


def draw(engine: PadEngine, how: DecodingSettings) -> list[list[int]]:
    wanted = [engine.preference(["humorous"])] * 3000
    return generate_all(engine, [PROMPT] * 3000, wanted, how)


def exact_chances(engine: PadEngine, how: DecodingSettings) -> list[defaultdict[int, float]]:
    """The chance of every token at each place of an answer: of all answers there are, added up."""
    chances = []
    ways: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(how.max_new_tokens):
        texts = [[*PROMPT, *way] for way in ways]
        step = score_candidates(engine, texts, [engine.preference(["humorous"])] * len(texts), how)
        shares = step.scores.softmax(-1).tolist()
        ways = {
            (*way, token): chance * share
            for (way, chance), tokens, its_shares in zip(ways.items(), step.candidates.tolist(), shares, strict=True)
            for token, share in zip(tokens, its_shares, strict=True)
        }
        chances.append(defaultdict[int, float](float))
        for way, chance in ways.items():
            chances[-1][way[-1]] += chance
    return chances


def surprise(chances: Mapping[int, float], drawn: list[int]) -> float:
    """Pearson's chi-square of draws against chances, in deviations above its mean; rare tokens count as one."""
    rare = {token for token, chance in chances.items() if chance * len(drawn) < 8}
    seen = Counter(-1 if token in rare or token not in chances else token for token in drawn)
    expected = {token: chance * len(drawn) for token, chance in chances.items() if token not in rare}
    expected[-1] = max(len(drawn) - sum(expected.values()), 1.0)
    freedom = len(expected) - 1
    square = sum((seen[token] - number) ** 2 / number for token, number in expected.items())
    return (square - freedom) / math.sqrt(2 * freedom)


def test_a_draw_does_not_depend_on_how_candidates_are_ranked() -> None:
    """Otherwise a drafter of nearly the same scores would seldom be right."""
    torch.manual_seed(0)
    candidates = torch.stack([torch.randperm(50)[:8] for _ in range(200)])
    scores, rows = torch.randn(200, 8), list(range(200))
    drawn = []
    for order in (torch.arange(8), torch.randperm(8)):
        sampler = Sampler(DecodingSettings(temperature=1), [random.Random(row) for row in rows])
        drawn.append(sampler.choose(candidates[:, order], scores[:, order], rows, [0] * 200).tolist())
    assert drawn[0] == drawn[1]
    assert drawn[0] != candidates.gather(1, scores.argmax(-1, keepdim=True))[:, 0].tolist()
