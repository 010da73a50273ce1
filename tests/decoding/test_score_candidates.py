"""Scores only: what the first step scores is what decoding chooses by, and it is the method's equation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from pad_cli.decoding.engine import PadEngine
from pad_cli.equation import LogitHead, candidate_rewards, guided_scores, select_candidates, withhold_repeats
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.preference import Preference
from pad_cli.recipe import DecodingSettings
from tests.agreement import alone, assert_agree, assert_same_scores, row_of
from tests.architectures import ARCHITECTURES, make_architecture
from tests.decoding.adapters import train_lora, with_adapter
from tests.decoding.slow import last_state
from tests.tiny import PRINCIPLES, make_reward_model
from tests.token_prompts import generate_all, generate_ids, score_candidates

TEXTS = [[60], [5, 40, 77, 90, 31], [200, 17], [100, 101, 102, 103] * 3]
WEIGHTS = [1.0, 0.5, -2.0, 3.0]
HOW = DecodingSettings(max_new_tokens=1)


def make_engine(name: str, tokenizer: Any) -> PadEngine:
    policy = make_architecture(name, tokenizer)
    return PadEngine(policy, replace(make_reward_model(policy, scale=1.0), calibration=0.7))


def wanted(engine: PadEngine, weights: list[dict[str, float]] | None = None) -> list[Preference]:
    if weights is None:
        return [engine.preference([spec]) for spec in ("humorous", "not formal", "concise=2", "formal, humorous")]
    return [Preference(each, {}) for each in weights]


def centred(scores: torch.Tensor) -> torch.Tensor:
    """Rows without their mean: equal when they differ by a constant of the row."""
    return scores - scores.mean(-1, keepdim=True)


def close(first: torch.Tensor, second: torch.Tensor) -> None:
    torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("path", ["fused", "paired", "separate"])
@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
def test_scores_are_what_the_first_step_of_decoding_chooses_by(name: str, path: str, byte_tokenizer: Any) -> None:
    engine, how = make_engine(name, byte_tokenizer), HOW.model_copy(update={"path": path})
    step = score_candidates(engine, TEXTS, wanted(engine), how, WEIGHTS)
    chosen = generate_ids(engine, TEXTS, wanted(engine), how, WEIGHTS)
    best = step.candidates.gather(1, step.scores.argmax(-1, keepdim=True))
    assert [[token] for token in best[:, 0].tolist()] == chosen == [[token] for token in step.tokens.tolist()]
    plain = generate_ids(engine, TEXTS, None, how)
    assert chosen != plain
    assert [[token] for token in step.candidates[:, 0].tolist()] == plain


def test_scores_of_a_text_that_goes_on_are_those_of_its_later_steps(byte_tokenizer: Any) -> None:
    """Without withheld rewards, for which the answer's beginning counts."""
    engine = make_engine("llama", byte_tokenizer)
    how = DecodingSettings(max_new_tokens=6, reward_ngram=0)
    answers = generate_all(engine, TEXTS, wanted(engine), how, WEIGHTS)
    for length in range(6):
        texts = [[*text, *answer[:length]] for text, answer in zip(TEXTS, answers, strict=True)]
        step = score_candidates(engine, texts, wanted(engine), how, WEIGHTS)
        expected = [answer[length : length + 1] for answer in answers]
        assert_agree(step.tokens[:, None].tolist(), expected, alone(engine, texts, wanted(engine), how, WEIGHTS))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_scores_are_log_probabilities_plus_weighted_calibrated_rewards(name: str, byte_tokenizer: Any) -> None:
    engine = make_engine(name, byte_tokenizer)
    policy, model = engine.policy, engine.reward_model
    assert isinstance(model, PersonalizedRewardModel)
    step = score_candidates(engine, TEXTS, wanted(engine), HOW, WEIGHTS)
    weights = model.weights(wanted(engine))
    for row, text in enumerate(TEXTS):
        hidden = last_state(policy, text)
        log_pi = policy.head(hidden).log_softmax(-1)
        log_p = policy.head(hidden + model.heads(hidden, weights[row : row + 1])).log_softmax(-1)
        candidates = step.candidates[row : row + 1]
        close(step.log_probs[row], log_pi[0, candidates[0]])
        close(step.log_probs[row], log_pi.topk(10).values[0])
        rewards = (log_p - log_pi).gather(1, candidates)
        expected = step.log_probs[row] + WEIGHTS[row] * model.calibration * rewards
        close(centred(step.scores[row : row + 1]), centred(expected))


@examples(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    first=st.lists(st.floats(-2, 2), min_size=3, max_size=3),
    second=st.lists(st.floats(-2, 2), min_size=3, max_size=3),
    factor=st.floats(-2, 2),
)
def test_rewards_are_linear_in_the_preference(
    first: list[float], second: list[float], factor: float, byte_tokenizer: Any
) -> None:
    """Inside the candidate set, up to a constant of the row; without a cap on the logits."""
    engine = make_engine("llama", byte_tokenizer)

    def pushes(numbers: list[float]) -> torch.Tensor:
        preference = Preference(dict(zip(PRINCIPLES, numbers, strict=True)), {})
        step = score_candidates(engine, TEXTS, [preference] * len(TEXTS), HOW)
        return centred(step.scores - step.log_probs)

    both = pushes([a + factor * b for a, b in zip(first, second, strict=True)])
    close(both, pushes(first) + factor * pushes(second))


def test_scores_do_not_depend_on_the_other_texts(byte_tokenizer: Any) -> None:
    engine = make_engine("llama", byte_tokenizer)
    together = score_candidates(engine, TEXTS, wanted(engine), HOW, WEIGHTS)
    for row, text in enumerate(TEXTS):
        apart = score_candidates(engine, [text], wanted(engine)[row : row + 1], HOW, WEIGHTS[row : row + 1])
        assert_same_scores(apart, row_of(together, row))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_paths_give_the_same_scores_up_to_a_constant_of_the_row_with_an_adapter(byte_tokenizer: Any) -> None:
    backbone = make_architecture("llama", byte_tokenizer)
    engine = PadEngine(backbone, with_adapter(make_reward_model(backbone), train_lora(backbone)))
    steps = [
        score_candidates(engine, TEXTS, wanted(engine), HOW.model_copy(update={"path": path}), WEIGHTS)
        for path in ("paired", "separate")
    ]
    steps = [replace(step, scores=step.scores - step.scores.max(-1, keepdim=True).values) for step in steps]
    for row in range(len(TEXTS)):
        assert_same_scores(*(row_of(step, row) for step in steps))
    assert float(centred(steps[0].scores - steps[0].log_probs).abs().max()) > 0.1


def score(
    head: LogitHead, logits: torch.Tensor, hidden: torch.Tensor, shift: torch.Tensor, history: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The method, from the policy's logits to guided scores."""
    candidates, log_probs = select_candidates(logits, 10)
    rewards = candidate_rewards(head, hidden, shift, candidates)
    rewards = withhold_repeats(rewards, log_probs, candidates, history, 2)
    return candidates, guided_scores(log_probs, rewards, torch.linspace(-1, 2, len(logits)))


@pytest.mark.parametrize("name", ["llama", "gemma2", "phi", "cohere"])
def test_the_method_compiles_as_one_graph_and_gives_the_same(name: str, byte_tokenizer: Any) -> None:
    """Nothing in it waits for a number on the device."""
    model = make_architecture(name, byte_tokenizer)
    torch.manual_seed(0)
    logits = model.head(torch.randn(4, 16))
    first, second = logits.topk(2).indices.split(1, dim=1)
    history = torch.cat([torch.full_like(first, -1), first, second, first], dim=1)  # `second` would repeat a pair
    arguments = (model.head, logits, torch.randn(4, 16), torch.randn(4, 16), history)
    torch._dynamo.reset()
    compiled = torch.compile(score, backend="eager", fullgraph=True)
    for ours, theirs in zip(compiled(*arguments), score(*arguments), strict=True):
        torch.testing.assert_close(ours, theirs)
