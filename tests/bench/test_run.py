"""`pad bench`: the report's structure, the agreement of paths before they are timed, errors; never times.

The paths themselves are in `test_paths.py`.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from pad_cli.bench.paths import Name, Paths, Watch
from pad_cli.bench.timing import bench_table, run_bench
from pad_cli.cli.main import app
from pad_cli.errors import PadError, RecipeError, UsageError
from pad_cli.models.checkpoint import save_reward_model
from pad_cli.models.language_model import LanguageModel
from pad_cli.recipe import BenchRecipe, ModelSettings, load_recipe
from tests.bench.test_paths import make_adapter
from tests.tiny import make_language_model, make_reward_model, make_tokenizer

TOKENS = 6


@pytest.fixture(scope="module")
def reward_directory(policy: LanguageModel, model_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("reward-model")
    save_reward_model(make_reward_model(policy), directory, ModelSettings(model=str(model_directory)))
    return directory


@pytest.fixture(scope="module")
def report(model_directory: Path, reward_directory: Path) -> dict[str, Any]:
    """A policy that is the backbone, at two batch sizes and two prompt lengths."""
    return bench(model_directory, reward_directory)


@pytest.fixture
def adapted_directory(byte_tokenizer: Any, model_directory: Path, tmp_path: Path) -> Path:
    """A reward model with an adapter."""
    directory = tmp_path / "adapted"
    directory.mkdir()
    model = make_reward_model(make_language_model(byte_tokenizer, seed=0))
    model.adapter = make_adapter(model.backbone.model, directory)
    save_reward_model(model, directory, ModelSettings(model=str(model_directory)))
    return directory


def save(model: LanguageModel, directory: Path) -> Path:
    model.model.save_pretrained(directory)
    model.tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture
def other_directory(other_policy: LanguageModel, tmp_path: Path) -> Path:
    return save(other_policy, tmp_path / "other")


@pytest.fixture
def larger_directory(byte_tokenizer: Any, tmp_path: Path) -> Path:
    return save(make_language_model(byte_tokenizer, seed=3, hidden_size=64), tmp_path / "larger")


@pytest.fixture
def benchmark(tmp_path: Path) -> dict[str, Any]:
    """Four prompts of 1 to 4 characters under two preferences: eight items, with 3 to 6 tokens."""
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": "a" * length}) + "\n" for length in range(1, 5)), encoding="utf-8")
    return {"benchmark": "jsonl", "options": {"path": str(file), "preferences": ["humorous", "not formal"]}}


SHORT: dict[str, Any] = {"batch_sizes": [2], "prompt_tokens": [5]}


def content(policy: Path, reward_model: Path, **changed: Any) -> dict[str, Any]:
    small = {"batch_sizes": [1, 3], "prompt_tokens": [5, 9], "new_tokens": TOKENS, "repeats": 2}
    return {"kind": "bench", "policy": {"model": str(policy)}, "reward_model": str(reward_model), **small, **changed}


def asking(policy: Path, reward_model: Path, benchmark: dict[str, Any], **changed: Any) -> BenchRecipe:
    """A recipe that answers a benchmark in place of random tokens."""
    mine = content(policy, reward_model, benchmark=benchmark, **changed)
    del mine["prompt_tokens"]
    recipe = load_recipe(mine)
    assert isinstance(recipe, BenchRecipe)
    return recipe


def bench(policy: Path, reward_model: Path, dtype: str = "auto", **changed: Any) -> dict[str, Any]:
    recipe = load_recipe({**content(policy, reward_model, **changed), "policy": {"model": str(policy), "dtype": dtype}})
    assert isinstance(recipe, BenchRecipe)
    return run_bench(recipe)


def pick(report: dict[str, Any], path: str, batch_size: int) -> dict[str, Any]:
    return next(row for row in report["rows"] if (row["path"], row["batch_size"]) == (path, batch_size))


def test_every_path_is_measured_at_every_batch_size_and_prompt_length(report: dict[str, Any]) -> None:
    rows = report["rows"]
    seen = [(row["batch_size"], row["prompt_tokens"], row["path"]) for row in rows]
    paths = ("generate", "plain", "fused", "separate")
    assert seen == [(batch, prompt, path) for batch in (1, 3) for prompt in (5, 9) for path in paths]
    for row in rows:
        assert row["dtype"] == "float32"
        assert row["new_tokens"] == TOKENS
        assert row["ratio_low"] <= row["ratio_to_generate"] <= row["ratio_high"]
        assert row["ms_per_token"] > 0
        assert row["tokens_per_second"] == pytest.approx(1000 * row["batch_size"] / row["ms_per_token"])


def test_generate_is_the_measure_of_itself(report: dict[str, Any]) -> None:
    for row in report["rows"]:
        if row["path"] == "generate":
            assert (row["ratio_low"], row["ratio_to_generate"], row["ratio_high"]) == (1, 1, 1)


def test_fused_needs_one_forward_a_token_and_separate_two(report: dict[str, Any]) -> None:
    needed = {"generate": 1, "plain": 1, "fused": 1, "separate": 2}
    for path, count in needed.items():
        assert pick(report, path, 3)["forwards_per_token"] == count


def test_an_answer_of_one_token_is_measured_too(model_directory: Path, reward_directory: Path) -> None:
    assert pick(bench(model_directory, reward_directory, new_tokens=1, **SHORT), "fused", 2)["new_tokens"] == 1


def test_another_backbone_is_measured_separately(other_directory: Path, reward_directory: Path) -> None:
    report = bench(other_directory, reward_directory, **SHORT)
    assert [row["path"] for row in report["rows"]] == ["generate", "plain", "separate"]
    assert pick(report, "separate", 2)["forwards_per_token"] == 2


def test_a_backbone_smaller_than_the_policy_is_measured_drafting_too(
    larger_directory: Path, reward_directory: Path
) -> None:
    report = bench(larger_directory, reward_directory, **SHORT)
    assert [row["path"] for row in report["rows"]] == ["generate", "plain", "separate", "speculative"]


def test_an_adapter_is_measured_in_one_forward_of_twice_the_rows(
    model_directory: Path, other_directory: Path, adapted_directory: Path
) -> None:
    report = bench(model_directory, adapted_directory, **SHORT)
    needed = {"generate": 1, "plain": 1, "paired": 1, "separate": 2}
    assert {row["path"]: row["forwards_per_token"] for row in report["rows"]} == needed
    report = bench(other_directory, adapted_directory, **SHORT)
    needed = {"generate": 1, "plain": 1, "separate": 2}
    assert {row["path"]: row["forwards_per_token"] for row in report["rows"]} == needed


@pytest.mark.parametrize("path", ["fused", "paired", "separate"])
def test_a_forced_path_is_the_only_guided_one(path: str, model_directory: Path, reward_directory: Path) -> None:
    report = bench(model_directory, reward_directory, decoding={"path": path}, **SHORT)
    assert [row["path"] for row in report["rows"]] == ["generate", "plain", path]


def test_a_benchmark_is_asked_in_place_of_random_tokens(
    larger_directory: Path, reward_directory: Path, benchmark: dict[str, Any]
) -> None:
    report = run_bench(asking(larger_directory, reward_directory, benchmark, batch_sizes=[1, 8]))
    paths = ("generate", "plain", "separate", "speculative")
    seen = [(row["batch_size"], row["prompt_tokens"], row["path"]) for row in report["rows"]]
    assert seen == [(batch, prompt, path) for batch, prompt in ((1, 3), (8, 6)) for path in paths]


def test_a_benchmark_that_cannot_fill_a_batch_is_refused(
    model_directory: Path, reward_directory: Path, benchmark: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match="8 items, too few for a batch of 9"):
        run_bench(asking(model_directory, reward_directory, benchmark, batch_sizes=[1, 9]))


def test_options_that_a_benchmark_does_not_take_are_a_recipe_error(
    model_directory: Path, reward_directory: Path
) -> None:
    benchmark = {"benchmark": "jsonl", "options": {"path": "prompts.jsonl", "rows": 3}}
    with pytest.raises(RecipeError, match=r"benchmark: options of 'jsonl': .*rows"):
        run_bench(asking(model_directory, reward_directory, benchmark))


def test_another_vocabulary_is_measured_on_a_benchmark_only(
    reward_directory: Path, benchmark: dict[str, Any], tmp_path: Path
) -> None:
    policy = save(make_language_model(make_tokenizer(extra=("ab",)), seed=3), tmp_path / "other-words")
    report = run_bench(asking(policy, reward_directory, benchmark, batch_sizes=[2]))
    assert [row["path"] for row in report["rows"]] == ["generate", "plain", "bridged"]
    with pytest.raises(UsageError, match="vocabularies differ"):
        bench(policy, reward_directory, **SHORT)


def test_rows_are_handed_over_as_soon_as_their_case_is_finished(
    model_directory: Path, reward_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handed: list[tuple[dict[str, Any], str]] = []
    recipe = load_recipe(content(model_directory, reward_directory, prompt_tokens=[5]))
    assert isinstance(recipe, BenchRecipe)
    report = run_bench(recipe, on_row=lambda row: handed.append((row, capsys.readouterr().err)))
    assert [row for row, _ in handed] == report["rows"]
    begun = [said for _, said in handed if said]
    assert [("batch 1," in said, "batch 3," in said) for said in begun] == [(True, False), (False, True)]


def test_half_precision_is_compared_by_scores(
    model_directory: Path, larger_directory: Path, reward_directory: Path
) -> None:
    for policy in (model_directory, larger_directory):
        report = bench(policy, reward_directory, dtype="bfloat16", **SHORT)
        assert {row["dtype"] for row in report["rows"]} == {"bfloat16"}


@pytest.fixture
def go_wrong(monkeypatch: pytest.MonkeyPatch) -> Callable[[Name], None]:
    """Have a path write other tokens than it does."""
    right = Paths.answer

    def at(broken: Name) -> None:
        def wrong(self: Paths, path: Name, watch: Watch | None = None) -> list[list[int]]:
            return [[token + (path == broken) for token in answer] for answer in right(self, path, watch)]

        monkeypatch.setattr(Paths, "answer", wrong)

    return at


def test_a_path_that_goes_wrong_is_refused_before_anything_is_timed(
    model_directory: Path, reward_directory: Path, go_wrong: Callable[[Name], None]
) -> None:
    go_wrong("plain")
    with pytest.raises(PadError, match="'generate' and 'plain' do not agree: token 1 of answer 1"):
        bench(model_directory, reward_directory)
    go_wrong("separate")
    with pytest.raises(PadError, match="'fused' and 'separate' do not agree: token 1 of answer 1"):
        bench(model_directory, reward_directory)


def test_drafting_that_goes_wrong_is_refused(
    larger_directory: Path, reward_directory: Path, go_wrong: Callable[[Name], None]
) -> None:
    go_wrong("speculative")
    with pytest.raises(PadError, match="'separate' and 'speculative' do not agree: token 1 of answer 1"):
        bench(larger_directory, reward_directory)


def test_more_tokens_than_a_model_reads_are_refused(model_directory: Path, reward_directory: Path) -> None:
    with pytest.raises(UsageError, match=r"262 tokens .* which reads 256"):
        bench(model_directory, reward_directory, prompt_tokens=[5, 256])


def test_fused_is_refused_for_another_backbone(other_directory: Path, reward_directory: Path) -> None:
    with pytest.raises(UsageError, match="fused needs a policy that is the reward model's backbone"):
        bench(other_directory, reward_directory, decoding={"path": "fused"})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"batch_sizes": []}, "batch_sizes"),
        ({"batch_sizes": [0]}, "batch_sizes.0"),
        ({"prompt_tokens": [0]}, "prompt_tokens.0"),
        ({"repeats": 0}, "repeats"),
        ({"threads": 0}, "threads"),
        ({"repeat": 3}, "repeat: no such key. Did you mean repeats"),
        ({"decoding": {"max_new_tokens": 3}}, "`decoding.max_new_tokens` cannot be set"),
        ({"decoding": {"temperature": 1.0}}, "`decoding.temperature` cannot be set: answers are greedy"),
        ({"decoding": {"guidance_weight": 0}}, "`decoding.guidance_weight` must not be 0"),
        ({"benchmark": {"benchmark": "embedded"}}, "`prompt_tokens` cannot be set: the prompts of a `benchmark`"),
        ({"benchmark": {"options": {}}}, "benchmark.benchmark: is missing"),
    ],
)
def test_what_cannot_be_measured_is_a_recipe_error(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(content(Path("p"), Path("r"), **changed))
    assert said in caught.value.message


def test_the_table_fits_80_columns(report: dict[str, Any]) -> None:
    report = copy.deepcopy(report)
    for row in report["rows"]:
        row.update(ms_per_token=1234.5, prompt_tokens=1024, peak_memory_bytes=123456 * 2**20)
        row.update(ratio_to_generate=123.4, ratio_low=100.1, ratio_high=199.99, forwards_per_token=1 + 1 / 3)
        row["path"] = row["path"].replace("separate", "speculative")
    console = Console(width=80)
    with console.capture() as captured:
        console.print(bench_table(report))
    text = captured.get()
    assert "…" not in text
    assert all(whole in text for whole in ("speculative", "123.40", "100.10-199.99", " 1.33 ", " 123456"))


def test_the_command_prints_a_table_or_json_and_names_the_machine(
    model_directory: Path, reward_directory: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "mine.yaml"
    small = content(model_directory, reward_directory, batch_sizes=[2], prompt_tokens=[5])
    recipe.write_text(json.dumps(small), encoding="utf-8")  # JSON is YAML
    table = CliRunner().invoke(app, ["bench", str(recipe)])
    assert table.exit_code == 0, table.output
    machine = table.stdout.splitlines()[0]
    assert all(word in machine for word in ("cores", "threads 1 (CPU time)", f"torch {torch.__version__}", "float32"))
    assert "Timing batch 2, prompt 5" in table.stderr
    lines = CliRunner().invoke(app, ["bench", str(recipe), "--json", "--quiet"])
    assert lines.stderr == ""
    rows = [json.loads(line) for line in lines.stdout.splitlines()]
    assert [row["path"] for row in rows] == ["generate", "plain", "fused", "separate"]


def test_json_has_the_cases_that_were_finished_before_it_went_wrong(
    model_directory: Path, reward_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(json.dumps(content(model_directory, reward_directory, prompt_tokens=[5])), encoding="utf-8")
    right = Paths.answer

    def fail_in_a_batch(self: Paths, path: Name, watch: Watch | None = None) -> list[list[int]]:
        if len(self.batch) > 1:
            raise PadError("The machine was needed elsewhere.")
        return right(self, path, watch)

    monkeypatch.setattr(Paths, "answer", fail_in_a_batch)
    result = CliRunner().invoke(app, ["bench", str(recipe), "--json"])
    assert result.exit_code == 1
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["path"], row["batch_size"]) for row in rows] == [
        (path, 1) for path in ("generate", "plain", "fused", "separate")
    ]


def test_a_recipe_of_another_kind_is_refused() -> None:
    result = CliRunner().invoke(app, ["bench", "embedded-eval"])
    assert result.exit_code == 2
    assert "is a recipe of kind 'eval'" in result.stderr
    assert "kind: bench" in result.stderr
