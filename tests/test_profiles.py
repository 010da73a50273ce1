"""Profiles: files that say what is wrong with them, and names that stand for weights wherever a preference is typed."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from pad_cli.errors import DataError, PadError, PreferenceError
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.preference import Preference, expand_profiles, parse_preference
from pad_cli.profiles import Profile, load_profile, profile_names, profile_weights, save_profile
from tests.tiny import PRINCIPLES, make_reward_model

ME = Profile(
    "me",
    {"humorous": 0.8, "formal": -0.1 - 0.2, "concise": 0.0},
    reward_model="0123456789012345",
    principles=PRINCIPLES,
    intervals={"humorous": (0.25, 1.35)},
    choices=20,
    accuracy=0.0,
    accuracy_interval=(0.0, 0.3),
    created=datetime.date(2026, 11, 23),
)


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(text: str, name: str = "me") -> Path:
    path = Path("profiles") / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def expanded(*specs: str, principles: tuple[str, ...] = PRINCIPLES, **profiles: Mapping[str, float]) -> Preference:
    written = expand_profiles(specs, lambda name: profiles[name])
    return parse_preference(written, principles, accepts_text=True)


def test_what_is_saved_is_what_is_loaded() -> None:
    assert save_profile(ME) == Path("profiles/me.yaml")
    assert load_profile("me") == ME
    assert profile_names() == ["me"]
    assert [path.name for path in Path("profiles").iterdir()] == ["me.yaml"]  # no scratch file is left


def test_a_file_says_what_it_is_and_is_plain_yaml() -> None:
    text = save_profile(ME).read_text(encoding="utf-8")
    assert text.startswith("# A profile of pad")
    assert "`weights` may be edited" in text
    assert yaml.safe_load(text)["weights"] == dict(ME.weights)


def test_a_profile_needs_nothing_but_weights() -> None:
    write("weights: {humorous: 1}")
    assert load_profile("me") == Profile("me", {"humorous": 1.0})


def test_a_path_is_a_path_and_gives_the_profile_its_name() -> None:
    save_profile(ME, Path("elsewhere/you.yaml"))
    assert load_profile(Path("elsewhere/you.yaml")) == load_profile("elsewhere/you.yaml") == replace(ME, name="you")


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ("weights: {humorous: 1", "", "not YAML"),
        ("- humorous", "", "a mapping"),
        ("choices: 3", "weights", "missing"),
        ("weights: [humorous]", "weights", "a valid dictionary"),
        ("weights: {humorous: much}", "weights.humorous", "number (found"),
        ("weights: {humorous: .nan}", "weights.humorous", "number (found"),
        ("weights: {humorous: true}", "weights.humorous", "number (found"),
        ("weights: {no: 1}", "weights.0", "a valid string"),
        ("weights: {}\nweight: 3", "weight", "Did you mean weights"),
        ("weights: {}\nchoices: many", "choices", "a valid integer"),
        ("weights: {}\nintervals: {humorous: 3}", "intervals.humorous", "a valid tuple"),
        ("weights: {}\nreward_model: 17", "reward_model", "a valid string"),
        ("weights: {}\ncreated: yesterday", "created", "a valid date"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_key(text: str, field: str, message: str) -> None:
    path = write(text)
    with pytest.raises(DataError) as caught:
        load_profile("me")
    assert message in str(caught.value)
    assert (caught.value.path, caught.value.field) == (str(path), field)


def test_a_missing_profile_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(PreferenceError, match=r"profiles/me.yaml[\s\S]*pad learn"):
        load_profile("me")
    write("weights: {humorous: 1}", "anna")
    with pytest.raises(PreferenceError, match="Known: anna"):
        load_profile("me")


@pytest.mark.parametrize("name", ["../me", "a/b", "", "me.yaml", "a b", "/etc/passwd", "é", "\ud800"])
def test_an_at_sign_never_leaves_the_directory(name: str, reward_model: PersonalizedRewardModel) -> None:
    Path("me.yaml").write_text("weights: {humorous: 1}", encoding="utf-8")
    with pytest.raises(PreferenceError):
        reward_model.preference([f"@{name}"])


def test_a_profile_is_added_to_what_else_is_asked() -> None:
    me = {"humorous": 0.5, "formal": -1.0}
    assert expanded("@me", me=me).weights == me
    assert expanded("@me=0.5", me=me).weights == {"humorous": 0.25, "formal": -0.5}
    assert expanded("not @me", me=me).weights == {"humorous": -0.5, "formal": 1.0}
    both = {"humorous": 0.5, "concise": 2.0, "formal": -0.5}
    for specs in (["@me", "formal=0.5", "concise=2"], ["formal=0.5, @me and concise=2"], ["@me; concise=2+formal=0.5"]):
        assert expanded(*specs, me=me).weights == both
    assert expanded("@me, @you", "@me", me=me, you={"formal": 2.0}).weights == {"humorous": 1.0}


def test_a_profile_of_nothing_asks_for_nothing() -> None:
    assert expanded("@me", me={"formal": 0.0}) == Preference({}, {})
    assert expanded("@me=0 and humorous", me={"formal": 1.0}).weights == {"humorous": 1.0}


def test_what_stands_around_a_profile_stays_as_it_is() -> None:
    names = ("safe and sound", "calm, cool")
    found = expanded("safe and sound=2, @me, calm, cool", principles=names, me={"safe and sound": 1.0})
    assert found.weights == {"safe and sound": 3.0, "calm, cool": 1.0}


def test_a_principle_may_be_named_like_a_profile() -> None:
    found = parse_preference(["@home"], ["@home"], accepts_text=False, profiles=lambda _: {})
    assert found.weights == {"@home": 1.0}


def test_text_may_begin_with_an_at_sign() -> None:
    assert expanded("text:@home, mail me @ work") == Preference({}, {"@home": 1.0, "mail me @ work": 1.0})


def test_a_profiles_free_text_is_free_text() -> None:
    assert expanded("@me=2", me={"text:like a poem": -0.5}) == Preference({}, {"like a poem": -1.0})


def test_a_profile_belongs_to_its_reward_model(reward_model: PersonalizedRewardModel) -> None:
    save_profile(replace(ME, reward_model=reward_model.fingerprint))
    assert reward_model.preference(["@me=2"]).weights == {"humorous": 1.6, "formal": ME.weights["formal"] * 2}
    other = make_reward_model(reward_model.backbone, seed=9)
    with pytest.raises(PreferenceError, match=r"belongs to another reward model[\s\S]*pad learn me"):
        other.preference(["@me"])


def test_a_profile_by_hand_goes_with_any_reward_model_that_knows_its_principles(
    reward_model: PersonalizedRewardModel,
) -> None:
    write("weights: {Humorous: 1, formal: -2}")
    assert reward_model.preference(["@me"]).weights == {"humorous": 1.0, "formal": -2.0}
    write("weights: {humorous: 1, witty: 1}")
    with pytest.raises(PreferenceError, match="'me': this reward model knows no principle 'witty'"):
        reward_model.preference(["@me"])


def test_to_a_reward_model_without_principles_everything_is_text() -> None:
    write("weights: {witty: 1}")
    assert profile_weights("me", SimpleNamespace(principles=(), fingerprint="f")) == {"witty": 1.0}


def test_a_parsed_profile_adds_to_the_rest_as_its_expansion_does() -> None:
    me = {"humorous": 0.5, "formal": -1.0, "text:like a poem": 2.0}
    for specs in (["@me"], ["not @me=0.5"], ["@me, formal=0.5", "concise and @me=2"], ["@me=0"]):
        added = parse_preference(specs, PRINCIPLES, accepts_text=True, profiles=lambda _: me)
        assert added == expanded(*specs, me=me)


def test_a_weight_that_is_no_number_is_refused() -> None:
    with pytest.raises(PadError, match="not a weight"):
        expanded("@me=much", me={"formal": 1.0})
