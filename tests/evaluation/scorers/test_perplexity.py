"""Perplexity of answers: what is counted, under which model, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import ModelLoadError, RecipeError
from pad_cli.evaluation.contract import EvalContext, load_scorer
from pad_cli.evaluation.scorers.likelihood import _loaded
from pad_cli.models.language_model import LanguageModel
from pad_cli.recipe import ScorerSettings
from tests.evaluation.scorers.classifiers import ANSWERS, make_samples, make_subject
from tests.tiny import make_language_model, make_tokenizer


@pytest.fixture
def subject(policy: LanguageModel) -> EvalContext:
    return make_subject(policy)


def scorer_of(**options: Any) -> Any:
    return load_scorer(ScorerSettings(scorer="log_perplexity", options=options))


def values_of(scorer: Any, subject: EvalContext, answers: tuple[tuple[str, str], ...] = ANSWERS) -> list[float]:
    return [found.value for found in scorer.score(make_samples(answers), subject)]


def surprise_of(model: LanguageModel, before: str, answer: str) -> float:
    """Mean negative log-probability of the answer's tokens behind a text, from the whole model's own logits."""
    first, second = (
        model.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"] for text in (before, answer)
    )
    logs = model.model(torch.cat([first, second], 1)).logits[0].log_softmax(-1)
    return -logs[first.shape[1] - 1 : -1].gather(1, second[0, :, None]).mean().item()


def test_it_is_the_mean_surprise_of_the_answers_tokens_without_the_end_of_sequence(
    policy: LanguageModel, subject: EvalContext
) -> None:
    expected = [surprise_of(policy, f"<user>{prompt}<assistant>", answer) for prompt, answer in ANSWERS]
    assert values_of(scorer_of(), subject) == pytest.approx(expected, abs=1e-5)


def test_without_a_chat_template_it_follows_the_plain_prompt() -> None:
    policy = make_language_model(make_tokenizer(chat=False), seed=2)
    expected = [surprise_of(policy, "Instruction: Hi\nResponse:", " Hello.")]
    assert values_of(scorer_of(), make_subject(policy), (("Hi", "Hello."),)) == pytest.approx(expected, abs=1e-5)


def test_batch_equals_single(subject: EvalContext) -> None:
    alone = [value for answer in ANSWERS for value in values_of(scorer_of(), subject, (answer,))]
    assert values_of(scorer_of(), subject) == pytest.approx(alone, abs=1e-5)


def test_another_model_may_read(other_policy: LanguageModel, subject: EvalContext, tmp_path: Path) -> None:
    other_policy.model.save_pretrained(tmp_path)
    other_policy.tokenizer.save_pretrained(tmp_path)
    _loaded.cache_clear()
    expected = values_of(scorer_of(), make_subject(other_policy))
    assert values_of(scorer_of(model=str(tmp_path)), subject) == pytest.approx(expected, abs=1e-5)
    with_settings = scorer_of(model={"model": str(tmp_path), "dtype": "float32"})
    assert values_of(with_settings, subject) == pytest.approx(expected, abs=1e-5)
    assert values_of(scorer_of(), subject) != pytest.approx(expected, abs=1e-2)


def test_what_is_too_long_loses_the_answers_end_then_the_prompts_beginning_and_says_so(
    policy: LanguageModel, subject: EvalContext
) -> None:
    """The tiny policy has 256 positions."""
    answers = (("Hi", "abc"), ("Hi", "abcdefghij" * 30), ("Who are you?" * 30, "abc"))
    found = scorer_of().score(make_samples(answers), subject)
    assert [one.truncated for one in found] == [False, True, True]
    behind_one = surprise_of(policy, "<assistant>", ("abcdefghij" * 30)[:255])
    behind_more = surprise_of(policy, ("Who are you?" * 30)[-252:] + "<assistant>", "abc")
    assert [found[1].value, found[2].value] == pytest.approx([behind_one, behind_more], abs=1e-5)


def test_by_default_the_limit_is_the_models(subject: EvalContext) -> None:
    """256 positions, of which prompt and template take four here."""
    found = scorer_of().score(make_samples((("Hi", "x" * 252), ("Hi", "x" * 253))), subject)
    assert [one.truncated for one in found] == [False, True]


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_answer_has_none(subject: EvalContext, text: str) -> None:
    with pytest.raises(ValueError, match="empty answer"):
        values_of(scorer_of(), subject, (("Hi", text),))


def test_scores_are_made_anew_when_what_decides_them_changes(
    policy: LanguageModel, other_policy: LanguageModel, model_directory: Path, subject: EvalContext
) -> None:
    keys = [
        scorer_of().key(subject),
        scorer_of().key(make_subject(other_policy)),
        scorer_of(model=str(model_directory)).key(subject),
        scorer_of(model={"model": str(model_directory), "dtype": "bfloat16"}).key(subject),
    ]
    assert len({repr(key) for key in keys}) == len(keys)
    named = scorer_of(model=str(model_directory))
    assert named.key(subject) == named.key(EvalContext("b", PadEngine(other_policy)))


def test_wrong_options_and_models_are_named(subject: EvalContext) -> None:
    for options, said in (
        ({"modl": "x"}, "Did you mean model"),
        ({"max_tokens": 9}, "max_tokens: no such key"),
        ({"model": 3}, "model"),
    ):
        with pytest.raises(RecipeError, match=said):
            scorer_of(**options)
    with pytest.raises(ModelLoadError):
        values_of(scorer_of(model="./none"), subject)
