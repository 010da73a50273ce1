"""`evaluate` on a small JSONL benchmark: what is answered, and that an interruption changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import DataError, PreferenceError, RecipeError, UsageError
from pad_cli.evaluation.evaluate import ANSWERS, CROSS_POLICY, SCORES, evaluate, items_by_policy
from pad_cli.evaluation.outputs import COSTS, MARKDOWN, OUTPUTS, PAGE, REPORT
from pad_cli.models.checkpoint import load_reward_model, save_reward_model
from pad_cli.models.language_model import LanguageModel
from pad_cli.prompts import load_benchmarks
from pad_cli.recipe import DecodingSettings, EvalRecipe, ModelSettings
from pad_cli.records import BenchmarkItem, as_messages
from pad_cli.registry import BENCHMARKS, SCORERS
from tests.agreement import alone, assert_agree
from tests.tiny import make_language_model, make_reward_model

PROMPTS = ("Hi", "How do I bake bread?", "Why?", "Tell me about the sea.", "A word on trees")
PREFERENCES = ["humorous", "not formal"]
DECODING = {"max_new_tokens": 8, "batch_size": 2, "temperature": 0.7}
MakeRecipe = Callable[..., EvalRecipe]


@pytest.fixture
def make_recipe(policy: LanguageModel, model_directory: Path, tmp_path: Path) -> MakeRecipe:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS), encoding="utf-8")
    settings = ModelSettings(model=str(model_directory), device="cpu")
    save_model(policy, tmp_path / "reward-model", settings, seed=0)

    def make(options: dict[str, Any] | None = None, **changed: Any) -> EvalRecipe:
        content: dict[str, Any] = {
            "kind": "eval",
            "output": str(tmp_path / "run"),
            "policies": {"home": settings.model_dump()},
            "reward_model": str(tmp_path / "reward-model"),
            "guidance_weights": [1.0, 2.0],
            "benchmarks": [
                {"benchmark": "jsonl", "options": {"path": str(prompts), "preferences": PREFERENCES, **(options or {})}}
            ],
            "scorers": ["words", "repeated_4grams"],
            "decoding": DECODING,
        }
        return EvalRecipe.model_validate({**content, **changed})

    return make


def save_model(policy: LanguageModel, directory: Path, settings: ModelSettings, *, seed: int) -> None:
    directory.mkdir(exist_ok=True)
    model = make_reward_model(policy, seed=seed)
    model.details = {"run": f"run-{seed}"}
    save_reward_model(model, directory, settings)


def answers_of(recipe: EvalRecipe) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(recipe.output) / ANSWERS).read_text(encoding="utf-8").splitlines()]


def test_a_method_answers_at_its_own_guidance_weights(make_recipe: MakeRecipe) -> None:
    report = evaluate(make_recipe(methods=["base", {"method": "pad", "guidance_weights": [0.5, 3.0]}, "pad+prompt"]))
    asked = {(row["method"], row["guidance_weight"]) for row in report["rows"]}
    assert asked == {("base", 0.0), ("pad", 0.5), ("pad", 3.0), ("pad+prompt", 1.0), ("pad+prompt", 2.0)}


def test_every_prompt_is_answered_under_every_preference_and_weight(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    report = evaluate(recipe)
    steered = [row for row in answers_of(recipe) if row["method"] == "pad"]
    assert len(steered) == len(PROMPTS) * len(PREFERENCES) * 2
    assert {(row["prompt"][0]["content"], *row["preference"], row["guidance_weight"]) for row in steered} == {
        (prompt, preference, weight) for prompt in PROMPTS for preference in PREFERENCES for weight in (1.0, 2.0)
    }
    pooled = [row for row in report["rows"] if row["method"] == "pad" and row["preference"] == "*"]
    assert [row["n"] for row in pooled] == [len(PROMPTS) * len(PREFERENCES)] * 4  # two weights, two scorers


def test_base_answers_each_prompt_once_and_is_scored_under_every_preference(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    report = evaluate(recipe)
    plain = [row for row in answers_of(recipe) if row["method"] == "base"]
    assert [row["prompt"][0]["content"] for row in plain] == list(PROMPTS)
    assert all(row["guidance_weight"] == 0.0 and row["preference"] == [] for row in plain)
    words = {
        row["preference"]: (row["n"], row["mean"])
        for row in report["rows"]
        if row["method"] == "base" and row["scorer"] == "words"
    }
    mean = sum(len(row["text"].split()) for row in plain) / len(PROMPTS)
    assert words["humorous"] == words["not formal"] == (len(PROMPTS), pytest.approx(mean, abs=1e-4))
    assert words["*"] == (2 * len(PROMPTS), pytest.approx(mean, abs=1e-4))


def test_answers_are_those_of_the_engine(make_recipe: MakeRecipe, policy: LanguageModel) -> None:
    recipe = make_recipe(methods=["pad"], guidance_weights=[2.0], decoding={"max_new_tokens": 8, "batch_size": 4})
    evaluate(recipe)
    rows = answers_of(recipe)
    engine = PadEngine(policy, load_reward_model(recipe.reward_model, backbone=policy))
    expected = engine.generate(
        [row["prompt"] for row in rows],
        [engine.preference(row["preference"]) for row in rows],
        DecodingSettings(max_new_tokens=8, guidance_weight=2.0),
    )
    requests = alone(
        engine,
        [row["prompt"] for row in rows],
        [engine.preference(row["preference"]) for row in rows],
        DecodingSettings(max_new_tokens=8, guidance_weight=2.0),
    )
    assert_agree(expected, [row["text"] for row in rows], requests)


def test_weight_0_scores_as_base_does(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(guidance_weights=[0.0], decoding={"max_new_tokens": 8, "batch_size": 2})
    rows = evaluate(recipe)["rows"]
    by_method = [
        [(row["preference"], row["scorer"], row["mean"]) for row in rows if row["method"] == method]
        for method in ("base", "pad")
    ]
    assert by_method[0] == by_method[1]


@pytest.mark.parametrize("share", [0.0, 0.13, 0.5, 0.77], ids=lambda share: f"{share:.0%} written")
def test_an_interrupted_evaluation_ends_in_an_identical_report(make_recipe: MakeRecipe, share: float) -> None:
    """With each answer decoded alone: what is left after an interruption is in other batches, which round otherwise."""
    recipe = make_recipe(decoding={**DECODING, "batch_size": 1})
    evaluate(recipe)
    answers, scores, report = (Path(recipe.output) / name for name in (ANSWERS, SCORES, REPORT))
    log, scored, result = (path.read_bytes() for path in (answers, scores, report))
    answers.write_bytes(log[: int(len(log) * share)])
    scores.write_bytes(scored[: int(len(scored) * share)])
    report.unlink()
    evaluate(recipe)
    assert report.read_bytes() == result
    assert {(row["key"], row["text"]) for row in answers_of(recipe)} == {
        (row["key"], row["text"]) for row in map(json.loads, log.decode().splitlines())
    }


def test_each_answer_stands_once_in_the_log_after_an_interruption_inside_a_batch(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    evaluate(recipe)
    answers = Path(recipe.output) / ANSWERS
    lines = answers.read_bytes().splitlines(keepends=True)
    answers.write_bytes(b"".join(lines[:6]) + lines[6][:20])  # batches are 2, 2, 1 of base, then 2 of pad
    evaluate(recipe)
    keys = [row["key"] for row in answers_of(recipe)]
    assert len(keys) == len(set(keys)) == len(lines)


def test_two_benchmarks_may_use_one_id_for_different_prompts(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe()
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "prompts.jsonl"  # ids are made of the file's name
    other.write_text('{"prompt": "Count to three, please."}\n', encoding="utf-8")
    first = recipe.benchmarks[0]
    second = first.model_copy(update={"name": "other", "options": {**first.options, "path": str(other)}})
    evaluate(recipe)
    alone = {(row["item"], row["prompt"][0]["content"]): row["text"] for row in answers_of(recipe)}
    both = recipe.model_copy(update={"benchmarks": [first, second], "output": str(tmp_path / "both")})
    rows = evaluate(both)["rows"]
    together = {(row["item"], row["prompt"][0]["content"]): row["text"] for row in answers_of(both)}
    assert alone.items() <= together.items()
    assert {content for _, content in together} == {*PROMPTS, "Count to three, please."}
    words = [row for row in rows if (row["method"], row["scorer"], row["preference"]) == ("pad", "words", "humorous")]
    prompts = {"jsonl: single": PROMPTS, "other: single": ("Count to three, please.",)}
    assert {(row["group"], row["n"]) for row in words} == {(group, len(few)) for group, few in prompts.items()}
    for row in words:
        asked = [
            answer
            for answer in answers_of(both)
            if answer["guidance_weight"] == row["guidance_weight"]
            and answer["preference"] == ["humorous"]
            and answer["prompt"][0]["content"] in prompts[row["group"]]
        ]
        assert row["mean"] == pytest.approx(sum(len(a["text"].split()) for a in asked) / len(asked), abs=1e-4)


def with_cross_policy(*, prompt: str) -> list[BenchmarkItem]:
    """The same prompt for the home policy and for the others."""
    return [
        BenchmarkItem(f"{group}/0", group, "humorous", as_messages(prompt), ("humorous",))
        for group in ("single", CROSS_POLICY)
    ]


def test_cross_policy_items_keep_their_meaning_where_two_benchmarks_have_them(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BENCHMARKS.table, "crossing", f"{__name__}:with_cross_policy")
    benchmarks = [{"benchmark": "crossing", "name": name, "options": {"prompt": name}} for name in ("a", "b")]
    recipe = make_recipe(benchmarks=benchmarks, policies={name: {"model": "x"} for name in ("home", "small", "large")})
    asked = items_by_policy(recipe, load_benchmarks(recipe.benchmarks))
    assert {name: [item.group for item in items] for name, items in asked.items()} == {
        "home": ["a: single", "b: single"],
        "small": ["a: cross-policy", "b: cross-policy"],
        "large": ["a: cross-policy", "b: cross-policy"],
    }


def test_a_finished_evaluation_answers_nothing_again(make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe()
    first = evaluate(recipe)
    monkeypatch.setattr(PadEngine, "generate", lambda *_, **__: pytest.fail("answered again"))
    assert evaluate(recipe) == first


def test_another_reward_model_answers_anew_and_base_does_not(
    make_recipe: MakeRecipe, policy: LanguageModel, model_directory: Path
) -> None:
    recipe = make_recipe()
    evaluate(recipe)
    before = answers_of(recipe)
    settings = ModelSettings(model=str(model_directory), device="cpu")
    save_model(policy, Path(recipe.reward_model), settings, seed=4)
    evaluate(recipe)
    new = answers_of(recipe)[len(before) :]
    assert len(new) == sum(row["method"] == "pad" for row in before)
    assert {row["method"] for row in new} == {"pad"}


def test_another_policy_under_the_same_name_answers_anew(
    make_recipe: MakeRecipe,
    byte_tokenizer,
    tmp_path: Path,
) -> None:
    directory = tmp_path / "policy"
    recipe = make_recipe(methods=["base"], policies={"home": {"model": str(directory), "device": "cpu"}})
    byte_tokenizer.save_pretrained(directory)
    for seed, answered in ((8, len(PROMPTS)), (9, 2 * len(PROMPTS))):
        make_language_model(byte_tokenizer, seed=seed).model.save_pretrained(directory)
        evaluate(recipe)
        assert len(answers_of(recipe)) == answered


class Choosy:
    """Counts letters, but refuses one text."""

    name, description, higher_is_better = "choosy", "letters, of most texts", True
    refused: str | None = None

    def __call__(self, text: str, facts: Mapping[str, Any]) -> float:
        if text == self.refused:
            raise ValueError("I do not read this")
        return float(len(text))


CHOOSY = Choosy()


def test_a_scorer_that_fails_on_one_text_fails_its_cells_and_not_the_run(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SCORERS.table, "choosy", f"{__name__}:CHOOSY")
    evaluate(make_recipe(methods=["base"]))
    recipe = make_recipe(methods=["base"], scorers=["choosy", "words"])
    monkeypatch.setattr(CHOOSY, "refused", answers_of(recipe)[2]["text"])
    rows = evaluate(recipe)["rows"]
    assert {(row["preference"], row["failed"], row["mean"]) for row in rows if row["scorer"] == "choosy"} == {
        *(("*", 2, None), ("humorous", 1, None), ("not formal", 1, None))
    }
    assert all(row["failed"] == 0 and row["mean"] is not None for row in rows if row["scorer"] == "words")
    assert "The scorer 'choosy' failed on the answer to" in capsys.readouterr().err
    monkeypatch.setattr(CHOOSY, "refused", None)
    again = [row for row in evaluate(recipe)["rows"] if row["scorer"] == "choosy"]
    assert all(row["failed"] == 0 and row["mean"] is not None for row in again)


def test_costs_are_of_this_runs_answers_whichever_attempt_made_them(make_recipe: MakeRecipe) -> None:
    whole = make_recipe()
    evaluate(whole)
    path = Path(whole.output) / COSTS
    assert [(row["method"], row["guidance_weight"], row["answers"]) for row in json.loads(path.read_text())] == [
        *(("base", 0.0, 5), ("pad", 1.0, 10), ("pad", 2.0, 10))
    ]
    before = json.loads(path.read_text())
    evaluate(whole)
    assert json.loads(path.read_text()) == before
    part = make_recipe(guidance_weights=[2.0], options={"limit": 2})
    evaluate(part)
    base, pad = json.loads(path.read_text())
    assert [(row["method"], row["answers"]) for row in (base, pad)] == [("base", 2), ("pad", 4)]
    texts = {(row["method"], row["item"]): row["tokens"] for row in answers_of(whole) if row["guidance_weight"] != 1}
    asked = {row["item"] for row in json.loads((Path(part.output) / OUTPUTS).read_text())["items"]}
    assert pad["tokens"] == sum(tokens for (method, item), tokens in texts.items() if method == "pad" and item in asked)
    assert 0 < pad["seconds"] < before[2]["seconds"]


def test_several_seeds_give_one_score_an_item(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(methods=["base"], seeds=[0, 1, 2])
    rows = evaluate(recipe)["rows"]
    assert len(answers_of(recipe)) == 3 * len(PROMPTS)
    mean = sum(len(row["text"].split()) for row in answers_of(recipe)) / (3 * len(PROMPTS))
    pooled = next(row for row in rows if row["preference"] == "*" and row["scorer"] == "words")
    assert (pooled["n"], pooled["prompts"]) == (2 * len(PROMPTS), len(PROMPTS))
    assert pooled["mean"] == pytest.approx(mean, abs=1e-4)


def test_a_run_ends_with_pages_to_read(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(options={"limit": 2})
    evaluate(recipe)
    for name in (MARKDOWN, PAGE):
        assert "pad at 2" in (Path(recipe.output) / name).read_text(encoding="utf-8")
    items = json.loads((Path(recipe.output) / OUTPUTS).read_text())["items"]
    assert len(items) == 4
    assert all(set(answer["scores"]) == {"words", "repeated_4grams"} for item in items for answer in item["answers"])
    (Path(recipe.output) / OUTPUTS).unlink()
    evaluate(recipe)
    assert json.loads((Path(recipe.output) / OUTPUTS).read_text())["items"] == items


def test_the_run_keeps_its_recipe(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(methods=["base"])
    evaluate(recipe)
    assert json.loads((Path(recipe.output) / "recipe.json").read_text()) == recipe.model_dump()


def test_labels_name_the_rows_of_a_report(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(options={"preferences": {"fun": "humorous=2"}, "limit": 2}, methods=["pad"])
    rows = evaluate(recipe)["rows"]
    assert {row["preference"] for row in rows} == {"*", "fun"}
    assert all(row["n"] == 2 for row in rows)


def test_a_reward_model_saved_without_a_run_name_can_be_evaluated(
    make_recipe: MakeRecipe, policy: LanguageModel, model_directory: Path
) -> None:
    recipe = make_recipe(methods=["pad"])
    settings = ModelSettings(model=str(model_directory), device="cpu")
    save_reward_model(make_reward_model(policy), Path(recipe.reward_model), settings)
    assert evaluate(recipe)["rows"]


def test_unknown_names_and_options_are_refused_before_anything_is_answered(make_recipe: MakeRecipe) -> None:
    for changed, error in (
        ({"scorers": ["word"]}, UsageError),
        ({"methods": ["padd"]}, UsageError),
        ({"options": {"colour": 1}}, RecipeError),
        ({"methods": [{"method": "pad", "options": {"colour": 1}}]}, RecipeError),
        ({"scorers": [{"scorer": "reward", "options": {"colour": 1}}]}, RecipeError),
        ({"options": {"path": "missing.jsonl"}}, DataError),
        ({"options": {"limit": 0}}, DataError),
    ):
        recipe = make_recipe(**changed)
        with pytest.raises(error) as caught:
            evaluate(recipe)
        assert caught.value.hint
        assert not (Path(recipe.output) / ANSWERS).exists()


def test_a_profile_is_answered_as_its_weights_and_answered_anew_when_they_change(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    profile = tmp_path / "profiles" / "me.yaml"
    profile.parent.mkdir()
    profile.write_text("weights: {humorous: 2}", encoding="utf-8")
    recipe = make_recipe({"preferences": {"mine": "@me, formal"}}, methods=["pad"], guidance_weights=[3.0])
    evaluate(recipe)
    weighted = make_recipe({"preferences": {"mine": "humorous=2, formal"}}, methods=["pad"], guidance_weights=[3.0])
    evaluate(weighted.model_copy(update={"output": str(tmp_path / "weighted")}))
    texts = [row["text"] for row in answers_of(recipe)]
    assert texts == [
        row["text"] for row in answers_of(weighted.model_copy(update={"output": str(tmp_path / "weighted")}))
    ]
    profile.write_text("weights: {humorous: -2}", encoding="utf-8")
    evaluate(recipe)
    assert len(answers_of(recipe)) == 2 * len(PROMPTS)


def test_another_reward_models_profile_is_refused_before_anything_is_answered(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "me.yaml").write_text("weights: {formal: 1}\nreward_model: other", encoding="utf-8")
    recipe = make_recipe({"preferences": ["@me"]})
    with pytest.raises(PreferenceError, match="belongs to another reward model"):
        evaluate(recipe)
    assert not (Path(recipe.output) / ANSWERS).exists()


def test_what_is_always_asked_for_is_asked_for_in_every_guided_answer(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    changed = {"methods": ["base", "pad", "best-of-n"], "guidance_weights": [3.0]}
    plain, held = (
        {(row["method"], row["item"]): row["text"] for row in answers_of(recipe)}
        for recipe in (
            make_recipe({"preferences": {"it": "humorous, formal=4"}}, **changed, output=str(tmp_path / "plain")),
            make_recipe(
                {"preferences": {"it": "humorous"}}, **changed, output=str(tmp_path / "held"), always={"formal": 4.0}
            ),
        )
        if evaluate(recipe)
    )
    assert held == plain
    without = make_recipe({"preferences": {"it": "humorous"}}, **changed, output=str(tmp_path / "held"))
    evaluate(without)  # continues the same run without the floor: guided answers are other ones
    rows = [row["method"] for row in answers_of(without)]
    assert {name: rows.count(name) for name in ("base", "pad", "best-of-n")} == {
        "base": len(PROMPTS),
        "pad": 2 * len(PROMPTS),
        "best-of-n": 2 * len(PROMPTS),
    }
