"""`pad bench`: the report's structure, the agreement of paths before they are timed, errors; never times."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from pad_cli.benchmarking.agreement import Written, best_of, check_agreement
from pad_cli.benchmarking.conditions import conditions, peak_memory
from pad_cli.benchmarking.paths import Paths, Watch
from pad_cli.benchmarking.report import BenchRow, bench_table
from pad_cli.benchmarking.run import run_bench
from pad_cli.cli.main import app
from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import PadError, RecipeError, UsageError
from pad_cli.models.checkpoint import save_reward_model
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.recipe import BenchRecipe, DecodingSettings, ModelSettings, load_recipe
from tests.tiny import make_language_model

TOKENS = 6


@pytest.fixture
def reward_directory(reward_model: PersonalizedRewardModel, model_directory: Path, tmp_path: Path) -> Path:
    directory = tmp_path / "reward-model"
    directory.mkdir()
    save_reward_model(reward_model, directory, ModelSettings(model=str(model_directory)))
    return directory


@pytest.fixture
def other_directory(other_policy: LanguageModel, tmp_path: Path) -> Path:
    other_policy.model.save_pretrained(tmp_path / "other")
    other_policy.tokenizer.save_pretrained(tmp_path / "other")
    return tmp_path / "other"


def content(policy: Path, reward_model: Path, **changed: Any) -> dict[str, Any]:
    small = {"batch_sizes": [1, 3], "prompt_tokens": [5, 9], "new_tokens": TOKENS, "repeats": 2}
    return {"kind": "bench", "policy": {"model": str(policy)}, "reward_model": str(reward_model), **small, **changed}


def bench(policy: Path, reward_model: Path, dtype: str = "auto", **changed: Any) -> dict[str, Any]:
    recipe = load_recipe({**content(policy, reward_model, **changed), "policy": {"model": str(policy), "dtype": dtype}})
    assert isinstance(recipe, BenchRecipe)
    return run_bench(recipe)


def pick(report: dict[str, Any], path: str, batch_size: int) -> dict[str, Any]:
    return next(row for row in report["rows"] if (row["path"], row["batch_size"]) == (path, batch_size))


def test_every_path_is_measured_at_every_batch_size_and_prompt_length(
    model_directory: Path, reward_directory: Path
) -> None:
    rows = bench(model_directory, reward_directory)["rows"]
    seen = [(row["batch_size"], row["prompt_tokens"], row["path"]) for row in rows]
    paths = ("generate", "plain", "fused", "separate", "uncached")
    assert seen == [(batch, prompt, path) for batch in (1, 3) for prompt in (5, 9) for path in paths]
    assert all(list(row) == [field.name for field in fields(BenchRow)] for row in rows)
    for row in rows:
        assert row["dtype"] == "float32"
        assert row["new_tokens"] == TOKENS
        assert row["ratio_low"] <= row["ratio_to_generate"] <= row["ratio_high"]
        assert row["ms_per_token"] > 0
        assert row["tokens_per_second"] == pytest.approx(1000 * row["batch_size"] / row["ms_per_token"])
        assert row["peak_memory_bytes"] > 2**20


def test_generate_is_the_measure_of_itself(model_directory: Path, reward_directory: Path) -> None:
    for row in bench(model_directory, reward_directory)["rows"]:
        if row["path"] == "generate":
            assert (row["ratio_low"], row["ratio_to_generate"], row["ratio_high"]) == (1, 1, 1)


def test_fused_needs_one_forward_a_token_separate_two_and_uncached_two_for_each_answer(
    model_directory: Path, reward_directory: Path
) -> None:
    report = bench(model_directory, reward_directory)
    needed = {"generate": 1, "plain": 1, "fused": 1, "separate": 2}
    for path, count in needed.items():
        assert pick(report, path, 3)["forwards_per_token"] == count
    assert pick(report, "uncached", 1)["forwards_per_token"] == 2
    assert pick(report, "uncached", 3)["forwards_per_token"] == 6


def test_only_uncached_is_sampled(model_directory: Path, reward_directory: Path) -> None:
    for row in bench(model_directory, reward_directory)["rows"]:
        assert row["sampled_steps"] == (4 if row["path"] == "uncached" else None)


def test_an_answer_of_one_token_is_measured_too(model_directory: Path, reward_directory: Path) -> None:
    assert pick(bench(model_directory, reward_directory, new_tokens=1), "uncached", 1)["sampled_steps"] == 1


def test_another_backbone_is_measured_separately(other_directory: Path, reward_directory: Path) -> None:
    report = bench(other_directory, reward_directory, batch_sizes=[2], prompt_tokens=[5])
    assert [row["path"] for row in report["rows"]] == ["generate", "plain", "separate", "uncached"]
    assert pick(report, "separate", 2)["forwards_per_token"] == 2


@pytest.mark.parametrize("path", ["fused", "separate"])
def test_a_forced_path_is_the_only_guided_one(path: str, model_directory: Path, reward_directory: Path) -> None:
    report = bench(model_directory, reward_directory, decoding={"path": path}, batch_sizes=[1], prompt_tokens=[5])
    assert [row["path"] for row in report["rows"]] == ["generate", "plain", path, "uncached"]


def test_half_precision_is_compared_by_scores(model_directory: Path, reward_directory: Path) -> None:
    report = bench(model_directory, reward_directory, dtype="bfloat16")
    assert {row["dtype"] for row in report["rows"]} == {"bfloat16"}


def test_no_path_stops_at_an_end_of_sequence(reward_model: PersonalizedRewardModel) -> None:
    """Every token of this policy ends an answer, as far as its configuration goes."""
    policy = make_language_model(reward_model.backbone.tokenizer, seed=0)
    before = policy.model.generation_config
    before.eos_token_id = list(range(policy.vocabulary_size))
    with conditions(policy, threads=1):
        paths = Paths(PadEngine(policy, reward_model), DecodingSettings(), 2, 5, TOKENS)
        for path in ("generate", "plain", "fused", "separate"):
            answers = paths.answer(path, Watch(lambda: 0.0))
            assert [len(answer) for answer in answers] == [TOKENS, TOKENS], path
    assert policy.model.generation_config is before


def test_prompts_are_the_same_every_time_and_hold_no_special_token(reward_model: PersonalizedRewardModel) -> None:
    engine = PadEngine(reward_model.backbone, reward_model)
    first, second = (Paths(engine, DecodingSettings(), 3, 40, TOKENS).prompts for _ in range(2))
    assert first == second
    assert [len(prompt) for prompt in first] == [40, 40, 40]
    assert not {token for prompt in first for token in prompt} & set(engine.policy.tokenizer.all_special_ids)


def test_the_number_of_threads_is_restored(policy: LanguageModel) -> None:
    before = torch.get_num_threads()
    with conditions(policy, threads=before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_peak_memory_is_in_bytes_and_never_falls() -> None:
    first = peak_memory(torch.device("cpu"))
    assert first > 2**24
    assert peak_memory(torch.device("cpu")) >= first


def wrote(path: str, tokens: list[list[int]], best: list[list[float]]) -> Written:
    return Written(path, torch.tensor(tokens), torch.tensor(best))


def test_paths_that_write_other_tokens_are_named() -> None:
    first, second = (
        wrote("fused", [[1, 2], [3, 4]], [[0.0] * 2] * 2),
        wrote("separate", [[1, 2], [3, 5]], [[0.0] * 2] * 2),
    )
    with pytest.raises(PadError, match="'fused' and 'separate' do not agree: token 2 of answer 2 differs"):
        check_agreement(first, second, exact=True)


def test_in_half_precision_a_near_tie_may_fall_either_way_and_what_follows_it_is_another_answer() -> None:
    first, second = wrote("a", [[1, 2, 3]], [[-1.0, -1.1, -9.0]]), wrote("b", [[1, 7, 8]], [[-1.0, -1.2, -0.1]])
    check_agreement(first, second, exact=False)


@pytest.mark.parametrize("best", [[-1.0, -2.0, 0.0], [-1.0, float("nan"), 0.0]])
def test_in_half_precision_scores_that_differ_are_refused(best: list[float]) -> None:
    with pytest.raises(PadError, match="'a' and 'b' do not agree: scores differ"):
        check_agreement(wrote("a", [[1, 2, 3]], [[-1.0, -1.1, 0.0]]), wrote("b", [[1, 7, 3]], [best]), exact=False)


def test_the_best_score_is_the_same_whatever_constant_the_scores_have() -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0, -50.0]])
    assert torch.allclose(best_of(scores, 3), best_of(scores[:, :3] + 7, 3))


def test_a_path_that_goes_wrong_is_refused_before_anything_is_timed(
    model_directory: Path, reward_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Paths.answer

    def wrong(self: Paths, path: str, watch: Watch) -> list[list[int]]:
        answers = right(self, path, watch)
        return [[token + (path == "separate") for token in answer] for answer in answers]

    monkeypatch.setattr(Paths, "answer", wrong)
    with pytest.raises(PadError, match="'fused' and 'separate' do not agree: token 1 of answer 1"):
        bench(model_directory, reward_directory)


def test_the_uncached_path_is_checked_too(
    model_directory: Path, reward_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Paths.uncached_step

    def wrong(self: Paths, written: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        candidates, scores = right(self, written)
        return candidates, -scores

    monkeypatch.setattr(Paths, "uncached_step", wrong)
    with pytest.raises(PadError, match="'fused' and 'uncached' do not agree"):
        bench(model_directory, reward_directory)


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
    ],
)
def test_what_cannot_be_measured_is_a_recipe_error(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(content(Path("p"), Path("r"), **changed))
    assert said in caught.value.message


def test_the_table_fits_80_columns(model_directory: Path, reward_directory: Path) -> None:
    report = bench(model_directory, reward_directory)
    for row in report["rows"]:
        row.update(ms_per_token=1234.5, tokens_per_second=1234.5, first_token_ms=1234.5, ratio_high=199.99)
        row.update(ratio_to_generate=123.4, ratio_low=100.1)
    console = Console(width=80)
    with console.capture() as captured:
        console.print(bench_table(report))
    text = captured.get()
    assert "…" not in text
    assert "100.10-199.99" in text
    assert "estimated from 4 of 6 tokens" in " ".join(text.split())


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
    assert [row["path"] for row in rows] == ["generate", "plain", "fused", "separate", "uncached"]


def test_a_recipe_of_another_kind_is_refused() -> None:
    result = CliRunner().invoke(app, ["bench", "embedded-eval"])
    assert result.exit_code == 2
    assert "is a recipe of kind 'eval'" in result.stderr
    assert "kind: bench" in result.stderr
