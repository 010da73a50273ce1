"""`reproduce` on small models: each table's figures are those of its evaluations, and a killed run goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import RecipeError
from pad_cli.evaluation.evaluate import PAGE, REPRODUCE, SUMMARY, reproduce
from pad_cli.evaluation.outputs import COSTS
from pad_cli.models.checkpoint import save_reward_model
from pad_cli.models.language_model import LanguageModel
from pad_cli.recipe import ModelSettings, ReproduceRecipe, load_recipe
from tests.cli.test_commands import pad
from tests.tiny import make_reward_model

MakeRecipe = Callable[..., ReproduceRecipe]


@pytest.fixture
def make_recipe(policy: LanguageModel, model_directory: Path, tmp_path: Path) -> MakeRecipe:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"Tell me of {n}"}) + "\n" for n in range(4)), encoding="utf-8")
    settings = ModelSettings(model=str(model_directory), device="cpu")
    (tmp_path / "reward-model").mkdir()
    save_reward_model(make_reward_model(policy), tmp_path / "reward-model", settings)
    run: dict[str, Any] = {
        "policies": {"home": settings.model_dump()},
        "reward_model": str(tmp_path / "reward-model"),
        "benchmarks": [
            {"benchmark": "jsonl", "options": {"path": str(prompts), "preferences": ["humorous", "formal"]}}
        ],
        "scorers": ["words", "distinct_2"],
        "decoding": {"max_new_tokens": 6},
    }

    def make(**changed: Any) -> ReproduceRecipe:
        tables = {
            "main": {"question": "Who wins?", "scorers": ["words"], "runs": {"one": {**run, **changed}}},
            "weights": {"question": "How strong?", "runs": {"low": run, "high": {**run, "guidance_weights": [4.0]}}},
        }
        recipe = load_recipe({"kind": "reproduce", "output": str(tmp_path / "run"), "tables": tables})
        assert isinstance(recipe, ReproduceRecipe)
        return recipe

    return make


def test_every_run_is_an_evaluation_in_its_own_directory(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    result = reproduce(recipe)
    places = [("main", "one"), ("weights", "low"), ("weights", "high")]
    assert [(name, label) for name, table in result["tables"].items() for label in table["runs"]] == places
    for name, label in places:
        report = json.loads((Path(recipe.output) / name / label / "report.json").read_text(encoding="utf-8"))
        assert result["tables"][name]["runs"][label]["rows"] == report["rows"]
        assert result["tables"][name]["runs"][label]["comparisons"] == report["comparisons"]


def test_the_summary_shows_the_wanted_scorers_with_their_figures(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    result = reproduce(recipe)
    main, weights = (Path(recipe.output) / SUMMARY).read_text(encoding="utf-8").split("## weights")
    assert "Who wins?" in main
    assert ("distinct" in main, "distinct" in weights) == (False, True)
    for row in result["tables"]["main"]["runs"]["one"]["rows"]:
        if row["preference"] == "*" and row["scorer"] == "words":
            assert f"{row['mean']:.3f}" in main


def test_a_run_that_was_interrupted_ends_in_the_same_file(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe()
    reproduce(recipe)
    output = Path(recipe.output)
    whole, log = (output / REPRODUCE).read_bytes(), output / "weights" / "high" / "answers.jsonl"
    log.write_bytes(log.read_bytes()[:700])
    (output / REPRODUCE).unlink()
    reproduce(recipe)
    assert (output / REPRODUCE).read_bytes() == whole
    monkeypatch.setattr(PadEngine, "generate", lambda *_, **__: pytest.fail("answered again"))
    reproduce(recipe)


def test_a_mistake_in_a_run_is_named_by_its_place(make_recipe: MakeRecipe) -> None:
    with pytest.raises(RecipeError, match=r"tables\.main\.runs\.one\.metods"):
        make_recipe(metods=["base"])


def test_the_summary_says_what_each_method_of_each_run_costs(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    reproduce(recipe)
    output = Path(recipe.output)
    _, told = (output / SUMMARY).read_text(encoding="utf-8").split("## cost")
    for place in ("main/one", "weights/low", "weights/high"):
        assert f"{place.replace('/', ': ')}, on home" in told
        for row in json.loads((output / place / COSTS).read_text(encoding="utf-8")):
            name = f"{row['method']} at {row['guidance_weight']:g}" if row["guidance_weight"] else row["method"]
            assert f"| {name} | {row['models']} | {row['parameters']:,} |" in told


def test_the_page_leads_to_the_report_of_every_run(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    reproduce(recipe)
    output = Path(recipe.output)
    links = re.findall(r'href="([^"]+)"', (output / PAGE).read_text(encoding="utf-8"))
    assert links == ["main/one/report.html", "weights/low/report.html", "weights/high/report.html"]
    assert all((output / link).is_file() for link in links)


def test_the_command_prints_the_summary_or_one_row_a_line(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe()
    content = recipe.model_dump(mode="json", exclude_unset=True)
    (tmp_path / "reproduce.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    printed = pad("reproduce", str(tmp_path / "reproduce.yaml"), "-q").stdout
    assert printed.startswith((Path(recipe.output) / SUMMARY).read_text(encoding="utf-8"))
    lines = pad("reproduce", str(tmp_path / "reproduce.yaml"), "--json", "-q").stdout.splitlines()
    tables = reproduce(recipe)["tables"]
    assert [json.loads(line) for line in lines] == [
        {"table": name, "run": label, **row}
        for name, table in tables.items()
        for label, run in table["runs"].items()
        for row in run["rows"]
    ]
