"""Classifiers as scorers: what they read, which of their numbers is the score, and what is refused."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from pad_cli.errors import ModelLoadError, RecipeError
from pad_cli.evaluation.answering import score
from pad_cli.evaluation.contract import EvalContext, load_scorer
from pad_cli.evaluation.scorers.classifier import ARMORM_DIMENSIONS, Classifier, load_classifier
from pad_cli.models.language_model import LanguageModel
from pad_cli.recipe import ScorerSettings
from pad_cli.system.runs import ResultLog
from tests.evaluation.scorers.classifiers import ANSWERS, KINDS, LONGEST, make_classifier, make_samples, make_subject


@pytest.fixture(autouse=True)
def _nothing_loaded() -> None:
    load_classifier.cache_clear()


@pytest.fixture
def subject(policy: LanguageModel) -> EvalContext:
    return make_subject(policy)


def scorer_of(name: str = "classifier", **options: Any) -> Any:
    return load_scorer(ScorerSettings(scorer=name, options=options))


def values_of(scorer: Any, subject: EvalContext, answers: tuple[tuple[str, str], ...] = ANSWERS) -> list[float]:
    return [found.value for found in scorer.score(make_samples(answers), subject)]


def logits_of(directory: Path, first: str, second: str | None = None, **how: Any) -> torch.Tensor:
    """What transformers itself says of one text or pair, alone and unpadded."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForSequenceClassification.from_pretrained(directory).eval()
    tokens = tokenizer(first, second, return_tensors="pt", **how)
    if "type_vocab_size" not in model.config.to_dict():
        tokens.pop("token_type_ids", None)
    with torch.inference_mode():
        return model(**tokens).logits[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_score_is_what_transformers_says_of_the_pair_alone_whatever_is_in_the_batch(
    tmp_path: Path, subject: EvalContext, kind: str
) -> None:
    directory = make_classifier(tmp_path, kind)
    expected = [logits_of(directory, prompt, answer).item() for prompt, answer in ANSWERS]
    assert len({round(value, 4) for value in expected}) == len(expected)
    assert values_of(scorer_of(model=str(directory)), subject) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_without_a_padding_token_a_score_is_read_at_the_last_token_even_at_the_end_of_sequence(
    tmp_path: Path, subject: EvalContext, kind: str
) -> None:
    """The chat template ends in the end of sequence, which such tokenizers are often given for padding."""
    directory = make_classifier(tmp_path, kind, chat=True)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(directory)
    expected = [
        logits_of(directory, f"<user>{prompt}<assistant>{answer}<end>", add_special_tokens=False).item()
        for prompt, answer in ANSWERS
    ]
    assert values_of(scorer_of(model=str(directory)), subject) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_segments_are_given_to_models_that_know_them_only(tmp_path: Path, subject: EvalContext, kind: str) -> None:
    """GPT-2 would add a word's embedding for them, Llama refuses them, BERT was trained with them."""
    directory = make_classifier(tmp_path, kind)
    plain = values_of(scorer_of(model=str(directory), batch_size=9), subject)
    load_classifier.cache_clear()
    names = ["input_ids", "token_type_ids", "attention_mask"]
    AutoTokenizer.from_pretrained(directory, model_input_names=names).save_pretrained(directory)
    with_segments = values_of(scorer_of(model=str(directory)), subject)
    assert (with_segments == pytest.approx(plain, abs=1e-5)) == (kind != "bert")


@pytest.mark.parametrize(
    ("template", "texts"),
    [
        ("answer", ["Hello {prompt}!"]),
        ("pair", ["Hi", "Hello {prompt}!"]),
        ("hh", ["\n\nHuman: Hi \n\nAssistant:", "Hello {prompt}!"]),
    ],
)
def test_a_template_decides_the_text(tmp_path: Path, subject: EvalContext, template: Any, texts: list[str]) -> None:
    directory = make_classifier(tmp_path, "bert")
    values = values_of(scorer_of(model=str(directory), template=template), subject, (("Hi", "Hello {prompt}!"),))
    assert values == pytest.approx([logits_of(directory, *texts).item()], abs=1e-5)


def test_hh_spells_every_turn_of_a_conversation(tmp_path: Path, subject: EvalContext) -> None:
    directory = make_classifier(tmp_path, "gpt2")
    (sample,) = make_samples((("Why?", "No."),))
    turns = [("user", "One?"), ("assistant", "Yes."), ("user", "Two?")]
    prompt = tuple({"role": role, "content": content} for role, content in turns)
    sample = sample._replace(item=sample.item.__class__(**{**vars(sample.item), "prompt": prompt}))
    expected = logits_of(directory, "\n\nHuman: One?\n\nAssistant: Yes.\n\nHuman: Two? \n\nAssistant:", "No.").item()
    (found,) = scorer_of(model=str(directory), template="hh").score([sample], subject)
    assert found.value == pytest.approx(expected, abs=1e-5)


def test_chat_needs_a_chat_template(tmp_path: Path, subject: EvalContext) -> None:
    scorer = scorer_of(model=str(make_classifier(tmp_path, "gpt2")), template="chat")
    with pytest.raises(ModelLoadError, match="no chat template") as caught:
        values_of(scorer, subject)
    assert caught.value.hint


@pytest.mark.parametrize("kind", ["gpt2", "roberta"])
def test_a_long_text_is_read_as_far_as_the_model_can_and_says_so(
    tmp_path: Path, subject: EvalContext, kind: str
) -> None:
    directory = make_classifier(tmp_path, kind)
    limit = LONGEST - (1 if kind == "roberta" else 0)  # RoBERTa counts positions from behind its padding, token 0 here
    answers = (("Hi", "short"), ("Hi", "x" * 200))
    found = scorer_of(model=str(directory)).score(make_samples(answers), subject)
    assert [one.truncated for one in found] == [False, True]
    cut = logits_of(directory, "Hi", "x" * 200, truncation=True, max_length=limit).item()
    assert found[1].value == pytest.approx(cut, abs=1e-5)


def test_a_limit_of_ones_own_cuts_earlier(tmp_path: Path, subject: EvalContext) -> None:
    directory = make_classifier(tmp_path, "gpt2")
    found = scorer_of(model=str(directory), template="answer", max_tokens=5).score(make_samples(), subject)
    assert all(one.truncated for one in found)
    expected = [logits_of(directory, answer[:5]).item() for _, answer in ANSWERS]
    assert [one.value for one in found] == pytest.approx(expected, abs=1e-5)


def test_activation_and_normalisation_are_applied_in_this_order(tmp_path: Path, subject: EvalContext) -> None:
    directory = make_classifier(tmp_path, "bert", labels=3)
    with_ = functools.partial(scorer_of, model=str(directory))
    logits = [logits_of(directory, *pair).double() for pair in ANSWERS]
    plain, sigmoid, softmax, scaled = (
        values_of(with_(label=1, **how), subject)
        for how in (
            {},
            {"activation": "sigmoid"},
            {"activation": "softmax"},
            {"activation": "sigmoid", "mean": 0.5, "sd": 0.25},
        )
    )
    assert plain == pytest.approx([row[1].item() for row in logits], abs=1e-5)
    assert sigmoid == pytest.approx([row.sigmoid()[1].item() for row in logits], abs=1e-5)
    assert softmax == pytest.approx([row.softmax(0)[1].item() for row in logits], abs=1e-5)
    assert scaled == pytest.approx([(value - 0.5) / 0.25 for value in sigmoid], abs=1e-5)


def test_an_output_is_named_by_number_or_by_either_name(tmp_path: Path, subject: EvalContext) -> None:
    with_ = functools.partial(scorer_of, model=str(make_classifier(tmp_path, "bert", labels=3)))
    by_number = values_of(with_(label=2), subject)
    assert by_number == values_of(with_(label="label 2"), subject)
    assert by_number == values_of(with_(label="wit", labels=["calm", "kind", "wit"]), subject)
    assert by_number != values_of(with_(label=0), subject)


@pytest.mark.parametrize(("label", "said"), [(None, "which output"), ("label 3", "no output"), (3, "no output")])
def test_an_unknown_or_missing_label_names_the_known_ones(
    tmp_path: Path, subject: EvalContext, label: Any, said: str
) -> None:
    scorer = scorer_of(model=str(make_classifier(tmp_path, "bert", labels=3)), label=label)
    with pytest.raises(RecipeError, match=rf"{said}.*label 0, label 1, label 2"):
        values_of(scorer, subject)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "model: is missing"),
        ({"model": "m", "sd": 0}, "sd"),
        ({"model": "m", "colour": 1}, "colour: no such key"),
        ({"model": "m", "template": "Q: {prompt} A: {answer}"}, "template: input should be 'auto', 'chat'"),
        ({"model": "m", "labels": ["a", "b"], "label": "c"}, "no output"),
        ({"model": "m", "head": "regression_layer"}, "`labels`"),
        ({"model": "m", "trust_remote_code": True}, "trust_remote_code: no such key"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_loaded(options: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said) as caught:
        scorer_of(**options)
    assert caught.value.hint


def test_a_language_model_is_no_classifier(model_directory: Path, subject: EvalContext) -> None:
    """Its last layer would be random."""
    with pytest.raises(ModelLoadError, match="no trained classifier: it lacks score"):
        values_of(scorer_of(model=str(model_directory)), subject)


def test_what_is_not_there_is_a_load_error(tmp_path: Path, subject: EvalContext) -> None:
    with pytest.raises(ModelLoadError, match="Cannot load a classifier") as caught:
        values_of(scorer_of(model=str(tmp_path / "none")), subject)
    assert caught.value.hint


def test_an_answer_without_tokens_fails_alone(tmp_path: Path, subject: EvalContext) -> None:
    scorer = scorer_of(model=str(make_classifier(tmp_path / "m", "gpt2")), template="answer")
    samples = make_samples((("Hi", "one"), ("Hi", ""), ("Hi", "two")))
    found = score("taste", scorer, samples, subject, ResultLog(tmp_path / "scores.jsonl"))
    assert found[1].value is None
    assert [one.value for one in found if one.value is not None] == pytest.approx(
        values_of(scorer, subject, (("Hi", "one"), ("Hi", "two"))), abs=1e-5
    )


def test_two_outputs_of_one_model_read_an_answer_once(
    tmp_path: Path, subject: EvalContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = {"model": str(make_classifier(tmp_path, "bert", labels=2))}
    first, second = scorer_of(**source, label=0), scorer_of(**source, label=1)
    read: list[int] = []
    forward = Classifier._forward
    monkeypatch.setattr(Classifier, "_forward", lambda self, rows: read.append(len(rows)) or forward(self, rows))
    assert values_of(first, subject) != values_of(second, subject)
    assert read == [len(ANSWERS)]


def test_scores_are_made_anew_when_what_decides_them_changes(tmp_path: Path, subject: EvalContext) -> None:
    directory = str(make_classifier(tmp_path, "gpt2"))
    key = scorer_of(model=directory).key(subject)
    for changed in ({"template": "answer"}, {"mean": 1.0}, {"max_tokens": 9}, {"label": 0}, {"dtype": "float32"}):
        assert scorer_of(model=directory, **changed).key(subject) != key
    assert scorer_of(model=directory, batch_size=1, device="cpu", dimension="wit").key(subject) == key
    make_classifier(tmp_path, "gpt2", seed=1)
    assert scorer_of(model=directory).key(subject) != key


@pytest.mark.parametrize(
    ("name", "mean", "sd"), [("helpful", -0.01500361, 1.40736504), ("harmless", -0.94732502, 1.92034349)]
)
def test_the_papers_reward_models_read_hh_and_are_normalised_as_published(
    tmp_path: Path, subject: EvalContext, name: str, mean: float, sd: float
) -> None:
    directory = make_classifier(tmp_path, "gpt2")
    raw = logits_of(directory, "\n\nHuman: Why? \n\nAssistant:", "Because.").item()
    scorer = scorer_of(name, model=str(directory))
    assert values_of(scorer, subject, ANSWERS[:1]) == pytest.approx([(raw - mean) / sd], abs=1e-5)
    assert scorer.dimension == name
    assert scorer_of(name).options.model == f"Ray2333/gpt2-large-{name}-reward_model"


def test_humor_is_the_logit_of_the_second_class_of_the_answer_alone(tmp_path: Path, subject: EvalContext) -> None:
    directory = make_classifier(tmp_path, "roberta", labels=2)
    values = values_of(scorer_of("humor", model=str(directory)), subject, ANSWERS[:1])
    assert values == pytest.approx([logits_of(directory, "Because.")[1].item()], abs=1e-5)


@pytest.fixture
def armorm(tmp_path: Path) -> Path:
    """A tiny Llama whose last layer is called and shaped as in ArmoRM; its configuration names one output."""
    directory = make_classifier(tmp_path / "armorm", "llama", labels=len(ARMORM_DIMENSIONS), chat=True)
    config = directory / "config.json"
    model = AutoModelForSequenceClassification.from_pretrained(directory)
    model.config.num_labels, model.config.auto_map = 1, {"AutoModelForSequenceClassification": "modeling_custom.Gone"}
    model.config.save_pretrained(directory)
    assert "modeling_custom" in config.read_text(encoding="utf-8")
    weights = load_file(directory / "model.safetensors")
    weights["regression_layer.weight"] = weights.pop("score.weight")
    weights["gating.layers.0.weight"] = torch.ones(2, 2)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def test_armorms_dimensions_are_its_regression_layer_at_the_last_token_of_the_chat(
    armorm: Path, subject: EvalContext
) -> None:
    layer = load_file(armorm / "model.safetensors")["regression_layer.weight"]
    tokenizer, body = AutoTokenizer.from_pretrained(armorm), AutoModel.from_pretrained(armorm).eval()
    for place in (0, 10, 18):
        label = ARMORM_DIMENSIONS[place]
        expected = []
        for prompt, answer in ANSWERS:
            text = f"<user>{prompt}<assistant>{answer}<end>"
            with torch.inference_mode():
                states = body(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)).last_hidden_state
            expected.append((states[0, -1] @ layer[place]).item())
        scorer = scorer_of("armorm", model=str(armorm), label=label, dtype="float32")
        assert values_of(scorer, subject) == pytest.approx(expected, abs=1e-4)
        assert scorer.dimension == label


def test_armorm_asks_for_a_dimension_that_it_has() -> None:
    with pytest.raises(RecipeError, match="beavertails-is_safe"):
        scorer_of("armorm")
    with pytest.raises(RecipeError, match="Did you mean code-style"):
        scorer_of("armorm", label="code-styl")


def test_every_scorer_says_what_it_measures() -> None:
    for name, options in (
        ("classifier", {"model": "owner/name"}),
        ("helpful", {}),
        ("harmless", {}),
        ("humor", {}),
        ("armorm", {"label": 3}),
        ("log_perplexity", {}),
        ("distinct_2", {}),
        ("repeated_4grams", {}),
    ):
        scorer = scorer_of(name, **options)
        assert scorer.description
        assert scorer.dimension
        assert scorer.batch_size >= 1
        assert isinstance(scorer.higher_is_better, bool)
        assert isinstance(scorer.unit, str)
        assert scorer.facts == ()


def test_sigmoid_holds_for_any_logit(tmp_path: Path, subject: EvalContext) -> None:
    directory = make_classifier(tmp_path, "gpt2")
    weights = load_file(directory / "model.safetensors")
    weights["score.weight"] *= 1e5
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    values = values_of(scorer_of(model=str(directory), activation="sigmoid"), subject)
    assert all(math.isfinite(value) and 0 <= value <= 1 for value in values)
