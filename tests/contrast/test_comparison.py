"""`pad train-rm from-model` as a user runs it: pairs, heads, and a comparison with the instruction itself."""

from __future__ import annotations

import json
from pathlib import Path

from pad_cli.contrast.comparison import METHODS
from pad_cli.models.language_model import LanguageModel
from tests.cli.test_commands import pad
from tests.contrast.conftest import STYLES

SETTINGS = [
    f"principles=[{', '.join(STYLES)}]",
    "data.options.prompts=prompts.jsonl",
    "data.options.limit=12",
    "data.validation_share=0.5",
    "compare.prompts=3",
    "compare.guidance_weight=8",
    "heads.rank=8",
    "stages.0.epochs=20",
]


def test_one_command_makes_pairs_trains_and_compares(teacher: LanguageModel) -> None:
    arguments = [part for setting in [f"backbone.model={teacher.name}", *SETTINGS] for part in ("--set", setting)]
    done = pad("train-rm", "from-model", *arguments, "--out", "run")
    assert done.exit_code == 0, done.output
    assert "Share of answers taken for the asked principle" in done.stdout
    report = json.loads(Path("run/comparison/report.json").read_text(encoding="utf-8"))
    means = {
        row["method"]: row["mean"] for row in report["rows"] if (row["scorer"], row["preference"]) == ("style", "*")
    }
    assert set(means) == set(METHODS)
    assert means["pad"] > means["base"]
    ceilings = json.loads(Path("run/ceilings.json").read_text(encoding="utf-8"))
    assert set(ceilings) == {*STYLES, "plain"}
    again = pad("train-rm", "from-model", *arguments, "--out", "run")
    assert "nothing to do" in again.stderr
    assert again.stdout == done.stdout


def test_pairs_made_as_a_file_are_read_edited_and_trained_on(teacher: LanguageModel) -> None:
    model = f"backbone.model={teacher.name}"
    settings = [f"principles=[{', '.join(STYLES)}]", "data.options.prompts=prompts.jsonl", "data.options.limit=12"]
    arguments = [part for setting in [model, *settings] for part in ("--set", setting)]
    done = pad("pairs", "make", *arguments, "--out", "pairs.jsonl")
    assert done.exit_code == 0, done.output
    assert "answers to 12 prompts: pairs.jsonl" in done.stdout
    rows = [json.loads(line) for line in Path("pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {name for row in rows for name in row["answers"]} == {*STYLES, "plain"}
    again = pad("pairs", "make", *arguments, "--out", "pairs.jsonl")
    assert again.exit_code == 2
    assert "exists" in again.output
    rows[0]["answers"]["formal"] = "Pray consult the almanac."
    Path("edited.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    edited = "data={train: {path: edited.jsonl, format: per_preference, options: {neutral: [plain]}}}"
    trained = pad("train-rm", "from-model", "--set", model, "--set", settings[0], "--set", edited, "--out", "run")
    assert trained.exit_code == 2
    assert "`compare` needs pairs that a model writes" in trained.output
    overrides = [edited, "compare=null", settings[0], model]
    trained = pad("train-rm", "from-model", *(part for each in overrides for part in ("--set", each)), "--out", "run")
    assert trained.exit_code == 0, trained.output
    assert json.loads(Path("run/report.json").read_text(encoding="utf-8"))["principles"] == list(STYLES)


def test_only_pairs_that_a_model_writes_can_be_made() -> None:
    done = pad("pairs", "make", "embedded", "--out", "pairs.jsonl")
    assert done.exit_code == 2
    assert "only pairs of `contrast` can be made" in done.output
