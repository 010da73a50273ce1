"""`prompt`, `pad+prompt` and `contrast`: what the policy reads, and where they are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import RecipeError
from pad_cli.evaluation.contract import EvalContext, load_method
from pad_cli.evaluation.untrained_methods import Contrast, Pad, PadPrompt, Prompt
from pad_cli.models.checkpoint import save_reward_model
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.recipe import MethodSettings, ModelSettings
from pad_cli.records import BenchmarkItem, as_messages
from tests.agreement import alone, assert_agree
from tests.evaluation.methods.subjects import HOW, QUESTIONS, make_items, make_subject
from tests.tiny import make_language_model, make_reward_model, make_tokenizer

PAIRS: list[dict[str, Any]] = [
    {"prompt": "What is a kite?", "preference": "humorous", "chosen": "A sheet that fled.", "rejected": "A toy."},
    {"prompt": "Why rest?", "preference": "not formal, concise", "chosen": "To go on.", "rejected": "One must."},
]
WORDED = [
    "Hi\nWrite in this style: humorous",
    "How do I bake bread? Write in this style: not formal",
    "Tell me about the sea. Write in this style: concise (strongly)",
    "Why? Write in this style: humorous, formal (slightly)",
]


@pytest.fixture(params=["chat template", "no chat template"])
def subject(request: pytest.FixtureRequest) -> EvalContext:
    policy = make_language_model(make_tokenizer(chat=request.param == "chat template"), seed=3)
    return make_subject(policy, make_reward_model(policy, seed=2))


def test_pad_takes_a_reward_model_of_its_own(policy: LanguageModel, tmp_path: Path) -> None:
    first, other = make_subject(policy, make_reward_model(policy, seed=2)), make_reward_model(policy, seed=5)
    (tmp_path / "other").mkdir()
    save_reward_model(other, tmp_path / "other", ModelSettings(model="x"))
    own, expected = Pad(reward_model=str(tmp_path / "other")), make_subject(policy, other)
    assert texts(own, first, 2.0) == texts(Pad(), expected, 2.0) != texts(Pad(), first, 2.0)
    assert own.key(first) == Pad().key(expected) != Pad().key(first)
    heads = sum(tensor.numel() for tensor in other.heads.parameters())
    assert (own.prepare(first).models, own.prepare(first).parameters) == (1, heads)


def write_pairs(path: Path, pairs: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    return str(path)


@pytest.fixture
def examples(tmp_path: Path) -> str:
    return write_pairs(tmp_path / "pairs.jsonl", PAIRS)


def texts(
    method: Any, subject: EvalContext, weight: float = 0.0, items: list[BenchmarkItem] | None = None
) -> list[str]:
    return [answer.text for answer in method.answer(subject, items or make_items(), HOW, weight)]


def test_the_policy_reads_the_preference_in_words(subject: EvalContext) -> None:
    expected = subject.engine.generate(WORDED, None, HOW)
    assert texts(Prompt(), subject) == [answer.text for answer in expected]
    assert texts(Prompt(), subject) != [answer.text for answer in subject.engine.generate(QUESTIONS, None, HOW)]


def test_a_preference_in_free_text_needs_no_encoder(subject: EvalContext) -> None:
    item = BenchmarkItem("a", "single", "odd", as_messages("Why?"), ("text:odd, but not too odd",))
    expected = subject.engine.generate(["Why? Write in this style: odd, not too odd"], None, HOW)
    assert texts(Prompt(), subject, items=[item]) == [expected[0].text]


def test_the_instructions_of_principles_are_one_system_message(
    subject: EvalContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = {name: f"Be {name}." for name in subject.reward_model.principles}
    entries = [f"{name}:\n  instruction: {text}\n" for name, text in told.items()]
    entries[list(told).index("formal")] += "  opposite: Be casual.\n"
    Path("principles.yaml").write_text("".join(entries), encoding="utf-8")
    method = Prompt(wording="instruction")
    reads = [prompt[0]["content"] for prompt in method.prompts(subject, make_items(), HOW)]
    assert reads == ["Be humorous.", "Be casual.", "Be concise.", "Be humorous. Be formal."]
    before = method.key(subject)
    assert before != Prompt().key(subject)
    Path("principles.yaml").write_text("humorous:\n  instruction: Joke.\n", encoding="utf-8")
    assert method.key(subject) != before


@pytest.mark.parametrize("few_shot", [False, True], ids=["zero-shot", "few-shot"])
def test_weight_0_of_every_steered_form_is_prompt(subject: EvalContext, few_shot: bool, examples: str) -> None:
    options: dict[str, Any] = {"examples": examples} if few_shot else {}
    asked = texts(Prompt(**options), subject)
    assert texts(PadPrompt(**options), subject, 0.0) == asked
    assert texts(Contrast(**options), subject, 0.0) == asked
    assert texts(PadPrompt(**options), subject, 2.0) != asked
    assert texts(Contrast(**options), subject, 2.0) != asked


def test_the_reward_model_reads_the_plain_prompt(subject: EvalContext) -> None:
    items = make_items()
    preferences = [subject.engine.preference(item.preference) for item in items]
    expected = subject.engine.generate(QUESTIONS, preferences, HOW, [1.5] * 4, policy_prompts=WORDED)
    assert texts(PadPrompt(), subject, 1.5) == [answer.text for answer in expected]


def test_the_scale_multiplies_the_guidance_weight_of_contrast(subject: EvalContext) -> None:
    assert texts(Contrast(scale=2.0), subject, 0.5) == texts(Contrast(), subject, 1.0)
    assert texts(Contrast(scale=2.0), subject, 0.5) != texts(Contrast(), subject, 0.5)


def test_contrast_without_a_preference_to_contrast_is_the_policy_alone(subject: EvalContext) -> None:
    items = make_items(("humorous, not humorous",) * 4)
    expected, requests = subject.engine.generate(QUESTIONS, None, HOW), alone(subject.engine, QUESTIONS, None, HOW)
    assert_agree(expected, texts(Contrast(), subject, 1.5, items), requests)


def test_examples_that_leave_no_room_for_an_answer_are_refused(subject: EvalContext, tmp_path: Path) -> None:
    """The tiny policy reads at most 256 tokens, which are bytes."""
    long = write_pairs(tmp_path / "long.jsonl", [{**PAIRS[0], "chosen": "A kite. " * 40}])
    with pytest.raises(RecipeError, match="at most 256"):
        Prompt(examples=long).answer(subject, make_items(), HOW, 0.0)


def test_the_key_changes_with_whatever_decides_answers(subject: EvalContext, examples: str, tmp_path: Path) -> None:
    fewer = write_pairs(tmp_path / "fewer.jsonl", PAIRS[:1])
    other = make_subject(subject.policy, make_reward_model(subject.policy, seed=9))
    forms: list[Any] = [
        Prompt(),
        Prompt(examples=examples),
        Prompt(examples=fewer),
        PadPrompt(),
        PadPrompt(examples=examples),
        Contrast(),
        Contrast(scale=2.0),
        Contrast(examples=examples),
    ]
    keys = [str(form.key(subject)) for form in forms]
    assert len(set(keys)) == len(forms)
    assert PadPrompt().key(other) != PadPrompt().key(subject)
    assert Prompt().key(other) == Prompt().key(subject)


def test_another_wording_is_another_key(subject: EvalContext, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Prompt().key(subject)
    monkeypatch.setattr("pad_cli.preference.instruction", lambda text: f"Be {text}")
    assert Prompt().key(subject) != before


@pytest.mark.parametrize("name", ["prompt", "pad+prompt", "contrast"])
@pytest.mark.parametrize(
    "options",
    [
        {"examples": [{"prompt": "Why?", "preference": "formal", "answer": "So."}]},
        {"examples": 3},
        {"examples": "pairs.jsonl", "shots": 0},
        {"unknown": 1},
    ],
)
def test_wrong_options_are_refused(name: str, options: dict[str, Any], subject: EvalContext) -> None:
    with pytest.raises(RecipeError, match="options"):
        load_method(MethodSettings(method=name, options=options)).key(subject)


def test_a_policy_with_another_vocabulary_is_prompted_and_guided(
    policy: LanguageModel, reward_model: PersonalizedRewardModel
) -> None:
    foreign = make_language_model(make_tokenizer(extra=("<extra>",)), seed=3)
    subject = make_subject(foreign, reward_model)
    plain = [answer.text for answer in PadEngine(foreign).generate(WORDED, None, HOW)]
    assert texts(Prompt(), subject) == texts(PadPrompt(), subject, 0.0) == texts(Contrast(), subject, 0.0) == plain
    assert texts(PadPrompt(), subject, 3.0) != plain
