"""Guided decoding across vocabularies, in float32: what the slow, plain version writes, however rows are batched."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import LogitsProcessor, LogitsProcessorList, SuppressTokensLogitsProcessor

from pad_cli.decoding.decode import Request, Sampler, Step, collect, decode_steps
from pad_cli.decoding.engine import PadEngine
from pad_cli.decoding.strategies import Guidance, Path
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_prompt
from pad_cli.models.reward_model import PersonalizedRewardModel, PromptRewardModel
from pad_cli.models.vocabulary_bridge import VocabularyBridge
from pad_cli.preference import Preference
from pad_cli.recipe import DecodingSettings
from pad_cli.records import as_messages
from tests.agreement import alone, assert_agree, each_row
from tests.architectures import ARCHITECTURES, make_architecture
from tests.decoding.conftest import PROMPTS
from tests.decoding.slow_bridge import SEA, TOWN, make_kinds, slow_bridged, slow_rewards
from tests.tiny import make_language_model, make_reward_model

SPECS = (["humorous"], ["formal, concise=0.5"], ["not humorous"], ["concise=2"])
WEIGHTS = (1.0, 2.0, 3.0, -1.0)
QUESTIONS = PROMPTS[:4]
HOW = DecodingSettings(max_new_tokens=12, candidates=5, guidance_weight=2)
SLIDING = ("mistral", "gemma2")

PAIRS = (
    ("byte pairs", True, "fallback pairs", False),
    ("byte pairs", False, "bytes", True),
    ("fewer bytes", False, "byte pairs", True),
    ("unigram", False, "byte pairs", True),
    ("unigram", True, "byte pairs", False),
    ("fallback pairs", True, "unigram", False),
    ("bytes", True, "unigram", True),
)


@pytest.fixture(scope="module")
def kinds() -> dict[bool, dict[str, Any]]:
    """Tokenizers by whether they have a chat template, and by kind."""
    return {chat: make_kinds(chat) for chat in (True, False)}


def make_policy(tokenizer: Any, seed: int, ends_in: int = 25) -> LanguageModel:
    """A tiny policy for which one token in `ends_in` ends an answer."""
    policy = make_language_model(tokenizer, seed=seed)
    policy.model.generation_config.eos_token_id = [1, *range(20, policy.vocabulary_size, ends_in)]
    return policy


def make_engine(kinds: dict[bool, dict[str, Any]], pair: tuple[str, bool, str, bool], seed: int = 0) -> PadEngine:
    kind, chat, other_kind, other_chat = pair
    policy = make_policy(kinds[chat][kind], seed)
    backbone = make_language_model(kinds[other_chat][other_kind], seed=seed + 50, hidden_size=24)
    return PadEngine(policy, make_reward_model(backbone, seed=seed))


def read(engine: PadEngine) -> list[Preference]:
    return [engine.preference(specs) for specs in SPECS]


def request_of(
    policy: LanguageModel,
    model: PersonalizedRewardModel,
    path: Path,
    how: DecodingSettings,
    processors: list[LogitsProcessor],
) -> Request:
    """The questions as a request on a path of our choice."""
    conversations = [as_messages(question) for question in QUESTIONS]
    return Request(
        policy=policy,
        prompts=[encode_prompt(policy.tokenizer, conversation) for conversation in conversations],
        guidance=Guidance(
            model=model,
            path=path,
            prompts=[encode_prompt(model.backbone.tokenizer, conversation) for conversation in conversations],
            preference_weights=model.weights([model.preference(specs) for specs in SPECS]),
            guidance_weight=torch.tensor(WEIGHTS),
        ),
        candidates=how.candidates,
        reward_ngram=how.reward_ngram,
        max_new_tokens=how.max_new_tokens,
        sampler=Sampler(how, []),
        processors=LogitsProcessorList(processors),
    )


def rewards_of(step: Step) -> dict[int, torch.Tensor]:
    """Rewards (C,) of a step's rows."""
    every = (step.scores - step.log_probs) / torch.tensor(WEIGHTS)[step.rows][:, None]
    return dict(zip(step.rows, every, strict=True))


class Dictation(LogitsProcessor):
    """Makes the tokens of a given text the policy's likeliest, another text for each of several prompts."""

    def __init__(self, prompts: list[list[int]], scripts: list[list[int]]) -> None:
        self._scripts = {tuple(prompt): script for prompt, script in zip(prompts, scripts, strict=True)}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        tokens = tuple(input_ids[0].tolist())
        prompt, script = next(item for item in self._scripts.items() if tokens[: len(item[0])] == item[0])
        wanted = script[len(tokens) - len(prompt) :][:1]  # nothing once it has ended
        scores = scores.clone()
        scores[0, wanted] = scores.max() + 5
        return scores


class Likeliest(Sampler):
    """Takes the policy's likeliest candidate, whatever its reward."""

    def choose(self, candidates: torch.Tensor, *_: object) -> torch.Tensor:
        return candidates[:, 0]


@pytest.mark.parametrize(("pair", "reward_ngram"), [(PAIRS[0], 0), *((pair, 2) for pair in PAIRS)], ids=str)
def test_the_fast_decoder_equals_the_slow_one(
    kinds: dict[bool, dict[str, Any]], pair: tuple[str, bool, str, bool], reward_ngram: int
) -> None:
    engine = make_engine(kinds, pair)
    assert isinstance(engine.reward_model, PersonalizedRewardModel)
    assert engine.path(HOW) == "bridged"
    how = HOW.model_copy(update={"reward_ngram": reward_ngram})
    answers = engine.generate(QUESTIONS, read(engine), how, WEIGHTS)
    assert_agree(answers, slow_answers(engine, how), alone(engine, QUESTIONS, read(engine), how, WEIGHTS))
    assert answers != engine.generate(QUESTIONS, None, how)


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_batch_equals_single_while_rows_leave_the_batch(
    kinds: dict[bool, dict[str, Any]], pair: tuple[str, bool, str, bool]
) -> None:
    engine, how = make_engine(kinds, pair, seed=3), HOW.model_copy(update={"max_new_tokens": 40})
    together = engine.generate(QUESTIONS, read(engine), how, WEIGHTS)
    apart = engine.generate(QUESTIONS, read(engine), how.model_copy(update={"batch_size": 1}), WEIGHTS)
    assert_agree(together, apart, alone(engine, QUESTIONS, read(engine), how, WEIGHTS))
    lengths = sorted(len(answer.token_ids) for answer in together)
    assert lengths[0] < lengths[-1], "some rows should leave before others"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_can_be_the_backbone(kinds: dict[bool, dict[str, Any]], name: str) -> None:
    policy = make_policy(kinds[True]["byte pairs"], seed=1)
    backbone = make_architecture(name, kinds[False]["unigram"])
    engine = PadEngine(policy, make_reward_model(backbone, scale=3.0))
    assert engine.reward_model is not None
    sizes: list[int] = []
    answers = engine.generate(QUESTIONS, read(engine), HOW, WEIGHTS, on_batch=sizes.append)
    assert max(sizes) == (1 if name in SLIDING else len(QUESTIONS)), "a sliding window takes one row at a time"
    assert_agree(answers, slow_answers(engine, HOW), alone(engine, QUESTIONS, read(engine), HOW, WEIGHTS))


def slow_answers(engine: PadEngine, how: DecodingSettings) -> list[tuple[int, ...]]:
    """What the slow version answers to the questions."""
    model, rows = engine.reward_model, zip(QUESTIONS, read(engine), WEIGHTS, strict=True)
    assert model is not None
    return [
        slow_bridged(engine.policy, model, prompt, preference, how.model_copy(update={"guidance_weight": weight}))
        for prompt, preference, weight in rows
    ]


def test_a_reward_relative_to_the_policy_is_that_of_the_slow_version(kinds: dict[bool, dict[str, Any]]) -> None:
    policy = make_policy(kinds[True]["byte pairs"], seed=2)
    backbone = make_language_model(kinds[False]["unigram"], seed=5, hidden_size=24)
    torch.manual_seed(0)
    model = PromptRewardModel(backbone, torch.nn.Linear(24, 24).requires_grad_(False))
    engine = PadEngine(policy, model)
    preferences = [engine.preference([text]) for text in ("kind", "brief", "kind", "with a joke")]
    answers = engine.generate(QUESTIONS, preferences, HOW)
    slow = [slow_bridged(policy, model, *row, HOW) for row in zip(QUESTIONS, preferences, strict=True)]
    assert_agree(answers, slow, alone(engine, QUESTIONS, preferences, HOW))


@pytest.mark.parametrize("kind", ["bytes", "byte pairs", "unigram", "fallback pairs"])
@pytest.mark.parametrize("backbone_kind", ["bytes", "byte pairs", "unigram", "fallback pairs"])
def test_scores_are_right_inside_and_after_characters_of_several_bytes(
    kinds: dict[bool, dict[str, Any]], kind: str, backbone_kind: str
) -> None:
    """Also for the tokens that are not chosen, most of which would break a character."""
    policy = make_language_model(kinds[True][kind], seed=6)
    model = make_reward_model(make_language_model(kinds[False][backbone_kind], seed=7, hidden_size=24))
    texts = ["naïve é 🦜.", " 日本 résumé", "ø", "x = «é日»\n"]
    scripts = [[*policy.tokenizer(text, add_special_tokens=False)["input_ids"], 1] for text in texts]
    how = DecodingSettings(candidates=4, reward_ngram=0, max_new_tokens=max(map(len, scripts)))
    prompts = [encode_prompt(policy.tokenizer, as_messages(question)) for question in QUESTIONS]
    request = request_of(policy, model, "bridged", how, [Dictation(prompts, scripts)])
    request = replace(request, sampler=Likeliest(how, []))
    for position, step in enumerate(decode_steps(request)):
        for row, rewards in rewards_of(step).items():
            written, preference = scripts[row][:position], model.preference(SPECS[row])
            tokens = step.candidates[step.rows.index(row)].tolist()
            slow = slow_rewards(policy, model, QUESTIONS[row], written, tokens, preference)
            torch.testing.assert_close(rewards, slow, atol=1e-4, rtol=1e-4)
            assert step.tokens[step.rows.index(row)] == scripts[row][position]
    assert max(map(len, scripts)) == position + 1


def test_with_equal_vocabularies_and_canonical_text_it_is_the_path_separate(byte_tokenizer: Any) -> None:
    policy, backbone = (make_language_model(byte_tokenizer, seed=seed) for seed in (8, 9))
    model, how = make_reward_model(backbone), HOW.model_copy(update={"max_new_tokens": 30})
    printable = {byte_tokenizer.convert_tokens_to_ids(chr(code)) for code in range(33, 127)}
    others = [token for token in range(len(byte_tokenizer)) if token not in {*printable, byte_tokenizer.eos_token_id}]
    only = [SuppressTokensLogitsProcessor(others)]
    requests = {path: request_of(policy, model, path, how, only) for path in ("bridged", "separate")}
    bridged, separate = (collect(len(QUESTIONS), decode_steps(request)) for request in requests.values())
    assert_agree(bridged, separate, each_row(requests["separate"]))
    plain = PadEngine(policy).generate(QUESTIONS, None, how)
    assert bridged != [list(answer.token_ids) for answer in plain]


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_rewards_add_up_to_the_exact_reward_of_the_text(
    kinds: dict[bool, dict[str, Any]], pair: tuple[str, bool, str, bool]
) -> None:
    policy = make_policy(kinds[pair[1]][pair[0]], seed=9, ends_in=60)
    model = make_reward_model(make_language_model(kinds[pair[3]][pair[2]], seed=54, hidden_size=24))
    how = DecodingSettings(candidates=3, reward_ngram=0, max_new_tokens=60)
    check_sums(request_of(policy, model, "bridged", how, []))


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_rewards_of_long_texts_add_up_while_rows_leave_the_batch(
    kinds: dict[bool, dict[str, Any]], pair: tuple[str, bool, str, bool]
) -> None:
    policy = make_language_model(kinds[pair[1]][pair[0]], seed=11, positions=512)
    model = make_reward_model(make_language_model(kinds[pair[3]][pair[2]], seed=55, hidden_size=24, positions=512))
    texts = [SEA[:90], TOWN[:170], TOWN[::-1][:40], f"日本\n\n{SEA[:120]}"]
    scripts = [[*policy.tokenizer(text, add_special_tokens=False)["input_ids"], 1] for text in texts]
    prompts = [encode_prompt(policy.tokenizer, as_messages(question)) for question in QUESTIONS]
    how = DecodingSettings(candidates=3, reward_ngram=0, max_new_tokens=max(map(len, scripts)))
    request = request_of(policy, model, "bridged", how, [Dictation(prompts, scripts)])
    assert check_sums(replace(request, sampler=Likeliest(how, []))) == scripts


def check_sums(request: Request) -> list[list[int]]:
    """Compare the sum of the chosen tokens' rewards with the exact reward of the text; the answers."""
    policy, guidance = request.policy, request.guidance
    assert guidance is not None
    assert isinstance(guidance.model, PersonalizedRewardModel)
    totals = [0.0] * len(QUESTIONS)
    steps = list(decode_steps(request))
    for step in steps:
        for row, rewards in rewards_of(step).items():
            place = step.rows.index(row)
            totals[row] += float(rewards[step.candidates[place] == step.tokens[place]])
    answers = collect(len(QUESTIONS), iter(steps))
    bridge = VocabularyBridge(policy, guidance.model.backbone)
    for question, answer, specs, total in zip(QUESTIONS, answers, SPECS, totals, strict=True):
        text, preference = bridge.text(answer), guidance.model.preference(specs)
        exact = guidance.model.token_rewards(as_messages(question), text, preference)
        if answer[-1] not in policy.end_tokens:
            exact = exact[:-1]
        assert text
        assert total == pytest.approx(float(exact.sum()), abs=1e-4 * len(answer))
    assert max(map(abs, totals)) > 1
    return answers


def test_rows_of_weight_0_are_plain_greedy_beside_guided_rows(kinds: dict[bool, dict[str, Any]]) -> None:
    engine = make_engine(kinds, PAIRS[0], seed=10)
    plain, requests = engine.generate(QUESTIONS, None, HOW), alone(engine, QUESTIONS, None, HOW)
    assert_agree(engine.generate(QUESTIONS, read(engine), HOW, [0.0] * 4), plain, requests)
    mixed = engine.generate(QUESTIONS, read(engine), HOW, [3.0, 0.0, 3.0, 0.0])
    assert_agree(mixed[1::2], plain[1::2], requests[1::2])
    assert mixed[0] != plain[0]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prompts=st.lists(st.text("abc é日?", min_size=1, max_size=20).filter(str.strip), min_size=1, max_size=4),
    weight=st.floats(-3, 3),
    candidates=st.integers(1, 12),
    pair=st.sampled_from(PAIRS),
    seed=st.integers(0, 50),
)
def test_batch_equals_single_for_any_prompts_weights_and_candidate_counts(
    kinds: dict[bool, dict[str, Any]],
    prompts: list[str],
    weight: float,
    candidates: int,
    pair: tuple[str, bool, str, bool],
    seed: int,
) -> None:
    engine = make_engine(kinds, pair, seed)
    how = HOW.model_copy(update={"candidates": candidates, "guidance_weight": weight})
    preferences = [engine.preference(SPECS[number % len(SPECS)]) for number in range(len(prompts))]
    together = engine.generate(prompts, preferences, how)
    apart = engine.generate(prompts, preferences, how.model_copy(update={"batch_size": 1}))
    assert_agree(together, apart, alone(engine, prompts, preferences, how))
