"""Statistics from the extra `text`, checked against their definitions."""

from __future__ import annotations

import sys

import pytest

from pad_cli.errors import PluginError, RecipeError
from pad_cli.evaluation.contract import Scorer, load_scorer
from pad_cli.recipe import ScorerSettings
from tests.evaluation.scorers.classifiers import make_samples

EASY, HARD = "The cat sat. The dog ran.", "Institutional heterogeneity necessitates methodological sophistication."


def scorer_of(name: str) -> Scorer:
    pytest.importorskip({"readability": "textstat", "sentiment": "vaderSentiment"}[name])
    return load_scorer(ScorerSettings(scorer=name))


def value_of(scorer: Scorer, text: str) -> float:
    (found,) = scorer.score(make_samples((("Hi", text),)), None)
    return found.value


def test_readability_is_fleschs_formula() -> None:
    """Two sentences of three words of one syllable."""
    assert value_of(scorer_of("readability"), EASY) == pytest.approx(206.835 - 1.015 * 3 - 84.6 * 1, abs=0.01)


def test_hard_english_is_less_readable() -> None:
    scorer = scorer_of("readability")
    assert value_of(scorer, HARD) < 30 < value_of(scorer, EASY)
    assert scorer.higher_is_better
    assert scorer.unit == "Flesch reading ease"


def test_sentiment_has_a_sign_and_bounds() -> None:
    scorer = scorer_of("sentiment")
    good, bad, neither = (
        value_of(scorer, text) for text in ("What a lovely day!", "This is horrible.", "It is a box.")
    )
    assert -1 <= bad < -0.3 < neither == 0 < 0.3 < good <= 1


@pytest.mark.parametrize("name", ["readability", "sentiment"])
def test_an_answer_without_words_has_neither(name: str) -> None:
    with pytest.raises(ValueError, match="without words"):
        value_of(scorer_of(name), " ... ")


@pytest.mark.parametrize(
    ("name", "package"), [("readability", "textstat"), ("sentiment", "vaderSentiment.vaderSentiment")]
)
def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, name: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(PluginError, match=f"'{name}' needs the package {package.partition('.')[0]}") as caught:
        load_scorer(ScorerSettings(scorer=name))
    assert caught.value.hint == 'pip install "pad-cli[text]"'


def test_they_take_no_options() -> None:
    with pytest.raises(RecipeError):
        load_scorer(ScorerSettings(scorer="readability", options={"lang": "de"}))


@pytest.mark.parametrize(("name", "package"), [("readability", "textstat"), ("sentiment", "vaderSentiment")])
def test_another_version_of_the_library_scores_anew(name: str, package: str) -> None:
    from importlib.metadata import version

    scorer = scorer_of(name)
    assert version(package) in str(scorer.key(None))
