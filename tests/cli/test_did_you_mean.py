"""Whatever is misspelt on the command line is answered with what was probably meant."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pad_cli.decoding.engine import PadEngine
from pad_cli.models.checkpoint import save_reward_model
from pad_cli.recipe import DecodingSettings, ModelSettings
from pad_cli.server.protocol import ApiError
from pad_cli.server.request_reader import Limits, RequestReader
from tests.cli.test_commands import refused
from tests.tiny import make_reward_model


@pytest.fixture(scope="module")
def reward_directory(policy: Any, model_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("reward-model")
    save_reward_model(make_reward_model(policy), directory, ModelSettings(model=str(model_directory)))
    return str(directory)


@pytest.fixture(autouse=True)
def _a_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "evening.yaml").write_text("weights: {humorous: 1}\n")
    (tmp_path / "profiles" / "wrong.yaml").write_text("wieghts: {humorous: 1}\n")


MISSPELT = [
    ("genrate x", "generate"),
    ("recipe shw embedded", "show"),
    ("prefs lst", "list"),
    ("generate x --temprature 1", "--temperature"),
    ("train-rm embeded", "embedded"),
    ("generate x --recipe embedded-genrate", "embedded-generate"),
    ("list scorrs", "scorers"),
    ("recipe check embedded --set kind=train", "train-rm"),
    ("recipe check embedded --set heads.rnk=3", "rank"),
    ("recipe check embedded --set haeds.rank=3", "heads"),
    ("recipe check embedded --set stages.0.stage=haeds", "heads"),
    ("recipe check embedded-generate --set decoding.path=fusd", "fused"),
    ("recipe check embedded-eval --set scorers.0=on_topik", "on_topic"),
    ("recipe check embedded-eval --set methods.0=bas", "base"),
    ("recipe check embedded-eval --set benchmarks.0.benchmark=embeded", "embedded"),
    ("recipe check embedded-sweep --set objectives.formal=presnt", "present"),
    ("eval embedded-eval --set scorers.0=on_topik --out run", "on_topic"),
    ("eval embedded-eval --set benchmarks.0.benchmark=embeded --out run", "embedded"),
    ("eval embedded-eval --set methods.0=bas --out run", "base"),
    ("eval embedded-eval --set benchmarks.0.options.promts=3 --out run", "prompts"),
    ("eval embedded-eval --set benchmarks.0.options.groups=[singel] --out run", "single"),
    ("train-rm embedded --set data.source=embeded --out run", "embedded"),
    ("train-rm embedded --set data.options.promts=3 --out run", "prompts"),
    ("train-rm embedded --set backbone.model=embedded/medum --out run", "medium"),
    ("generate x --policy embedded/medum", "medium"),
]


@pytest.mark.parametrize(("command", "meant"), MISSPELT)
def test_what_was_probably_meant_is_offered(command: str, meant: str) -> None:
    said = refused(*command.split())
    assert re.search(rf"(Did you mean|Possible options:)[^?)]*{re.escape(meant)}\b", said), said


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        ("generate x --policy {policy} --reward-model {reward} --pref humourous", "humorous"),
        ("generate x --policy {policy} --reward-model {reward} --pref @evning", "evening"),
        ("prefs show @evning", "evening"),
        ("prefs show @wrong", "weights"),
        ("prefs test formmal --policy {policy} --reward-model {reward}", "formal"),
    ],
)
def test_preferences_and_profiles_are_offered(
    command: str, meant: str, model_directory: Path, reward_directory: str
) -> None:
    said = refused(*command.format(policy=model_directory, reward=reward_directory).split())
    assert f"Did you mean {meant}" in said


@pytest.mark.parametrize("command", ["generate x --policy embeded/medium", "inspect embeded/reward-model"])
def test_a_model_source_is_offered_where_no_such_repository_is_known(command: str) -> None:
    assert "Did you mean embedded?" in refused(*command.split(), code=1)


@pytest.mark.parametrize(("name", "meant"), [("pda", "pad"), ("pad/humourous", "humorous"), ("pad/@evning", "evening")])
def test_the_server_offers_preferences(policy: Any, reward_model: Any, name: str, meant: str) -> None:
    with pytest.raises(ApiError, match=f"Did you mean .*{meant}"):
        RequestReader(PadEngine(policy, reward_model), DecodingSettings(), Limits()).specs(name)
