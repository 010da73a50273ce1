"""The trained competitors: what they learn from, and how they are kept, continued and paid for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pad_cli.errors import DataError, RecipeError
from pad_cli.evaluation import trained_methods as competitors
from pad_cli.evaluation.contract import EvalContext, load_method
from pad_cli.evaluation.trained_methods import Dpo, Soup, goal_pairs
from pad_cli.models.checkpoint_files import ADAPTER_WEIGHTS
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_answer, encode_prompt
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.models.scoring import all_log_probs
from pad_cli.recipe import MethodSettings
from pad_cli.records import PreferencePair, as_messages
from pad_cli.training import dpo
from tests.evaluation.methods.subjects import attached, make_items, make_subject
from tests.tiny import make_language_model

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
"""PEFT's PeftModel asks the model for it."""

LETTERS = {"humorous": "ha", "formal": "yes"}
TRAINING: dict[str, Any] = {
    "steps": 6, "batch_size": 4, "learning_rate": 0.03, "warmup_steps": 0, "lora_rank": 2, "lora_alpha": 4,
    "save_every": 2,
}  # fmt: skip


def write_pairs(path: Path) -> dict[str, Any]:
    """Options of a competitor: pairs under either of two principles, of which some ask for its absence."""
    rows = []
    for number in range(12):
        name, other = ("humorous", "formal") if number % 2 else ("formal", "humorous")
        answers = [f"{'abcdef'[number % 6]}{LETTERS[of] * 2}" for of in (name, other)]
        sign = -1 if number % 3 == 0 else 1
        chosen, rejected = answers[::sign]
        rows.append({"prompt": f"Say {number}", "preference": {name: sign}, "chosen": chosen, "rejected": rejected})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {"data": {"train": str(path)}, **TRAINING}


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    return write_pairs(tmp_path / "pairs.jsonl")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PAD_HOME of this test alone."""
    monkeypatch.setenv("PAD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def subject(policy: LanguageModel, reward_model: PersonalizedRewardModel) -> EvalContext:
    return make_subject(policy, reward_model)


def pair(preference: dict[str, float], chosen: str = "better", **texts: float) -> PreferencePair:
    return PreferencePair(as_messages("Hi"), preference, chosen, "worse", texts)


def test_a_principle_learns_from_the_pairs_that_ask_for_it_alone() -> None:
    own = pair({"humorous": 2.0})
    others = [pair({"formal": 1.0}), pair({"humorous": 1.0, "formal": 1.0}), pair({"humorous": 1.0}, text=1.0)]
    assert goal_pairs([*others, own], {"humorous": 1.0}) == [own]


def test_a_pair_that_asks_for_the_absence_of_a_principle_is_turned_round() -> None:
    (turned,) = goal_pairs([pair({"formal": -1.0})], {"formal": 1.0})
    assert (turned.chosen, turned.rejected, turned.preference) == ("worse", "better", {"formal": 1.0})
    (again,) = goal_pairs([pair({"formal": -1.0})], {"formal": -1.0})
    assert again == pair({"formal": -1.0})


def test_a_mixture_learns_from_its_own_pairs_and_from_its_principles_in_proportion() -> None:
    mixed = pair({"humorous": 3.0, "formal": -1.0}, "both")
    singles = [pair({name: 1.0}, name) for name in ("humorous", "formal") for _ in range(8)]
    other = pair({"humorous": 1.0, "formal": 1.0}, "another mixture")
    found = goal_pairs([mixed, other, *singles], {"formal": -0.25, "humorous": 0.75})
    assert [one.chosen for one in found].count("both") == 1
    assert [one.chosen for one in found].count("humorous") == 12
    assert [one.rejected for one in found].count("formal") == 4
    assert len(found) == 17


def test_a_principle_that_no_pair_asks_for_alone_is_refused() -> None:
    with pytest.raises(DataError, match="asks for formal alone"):
        goal_pairs([pair({"humorous": 1.0}), pair({"humorous": 1.0, "formal": 1.0})], {"humorous": 1.0, "formal": 1.0})


def margin(policy: LanguageModel, chosen: str, rejected: str) -> float:
    """How much likelier the policy finds one answer than another, as it reads now."""
    prompt = encode_prompt(policy.tokenizer, as_messages("Say 3"))
    read = [(tuple(prompt), tuple(encode_answer(policy.tokenizer, text))) for text in (chosen, rejected)]
    found = all_log_probs(policy, read)
    return float(found[0] - found[1])


def test_an_adapter_prefers_its_principle_and_the_policy_stays_as_it_was(
    subject: EvalContext, options: dict[str, Any], home: Path
) -> None:
    policy, answers = subject.policy, ("dhaha", "dyesyes")
    state = {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}
    before = margin(policy, *answers)
    trained = Dpo(**{**options, "steps": 20})
    for name, sign in (("humorous", 1), ("formal", -1)):
        with attached(policy, trained.adapter(policy, {name: 1.0}).directory) as adapter, adapter.on_rows_from(0):
            assert sign * (margin(policy, *answers) - before) > 3
    assert margin(policy, *answers) == before
    assert all(torch.equal(tensor, state[name]) for name, tensor in policy.model.state_dict().items())


def test_a_second_run_finds_the_adapter_and_states_the_same_cost(
    subject: EvalContext, options: dict[str, Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = replace(subject, items=tuple(make_items(("humorous", "formal", "humorous", "text:odd"))))
    cost = Dpo(**options).prepare(subject)
    linear = [module for module in subject.policy.model.get_decoder().modules() if isinstance(module, torch.nn.Linear)]
    one = sum(2 * (module.in_features + module.out_features) for module in linear)
    assert (cost.models, cost.parameters) == (2, 2 * one)
    assert cost.seconds > 0
    monkeypatch.setattr(competitors, "_train", None)
    assert Soup(**options).prepare(subject) == cost


@pytest.mark.parametrize("changed", [{"steps": 5}, {"seed": 1}, {"beta": 0.2}, {"data": "other"}])
def test_other_settings_or_pairs_give_another_adapter(
    changed: dict[str, Any], subject: EvalContext, options: dict[str, Any], home: Path, tmp_path: Path
) -> None:
    if "data" in changed:
        lines = (tmp_path / "pairs.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (tmp_path / "fewer.jsonl").write_text("".join(lines[:8]), encoding="utf-8")
        changed = {"data": {"train": str(tmp_path / "fewer.jsonl")}}
    trained, others = (Dpo(**chosen) for chosen in (options, {**options, **changed}))
    goal = {"humorous": 1.0}
    assert trained.adapter(subject.policy, goal).directory != others.adapter(subject.policy, goal).directory
    assert trained.key(subject) != others.key(subject)


def test_another_policy_gets_another_adapter(
    policy: LanguageModel, byte_tokenizer: Any, options: dict[str, Any], home: Path
) -> None:
    trained, other = Dpo(**options), make_language_model(byte_tokenizer, seed=5)
    directories = {trained.adapter(model, {"formal": 1.0}).directory for model in (policy, other, policy)}
    assert len(directories) == 2


def test_a_killed_training_goes_on_to_the_same_adapter_and_counts_both_parts(
    policy: LanguageModel, options: dict[str, Any], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Dpo(**options).adapter(policy, {"humorous": 1.0})
    monkeypatch.setenv("PAD_HOME", str(tmp_path / "another home"))
    plain = dpo._Progress.on_step_end

    def fall(self: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
        plain(self, args, state, control)
        if state.global_step == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dpo._Progress, "on_step_end", fall)
        with pytest.raises(KeyboardInterrupt):
            Dpo(**options).adapter(policy, {"humorous": 1.0})
    (work,) = (tmp_path / "another home" / "competitors").iterdir()
    assert (work / "checkpoint-4").is_dir()
    (work / "seconds").write_text("1000.0\n")
    again = Dpo(**options).adapter(policy, {"humorous": 1.0})
    assert again.directory.name == whole.directory.name
    first, second = (load_file(found.directory / ADAPTER_WEIGHTS) for found in (whole, again))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert again.cost.seconds > 1000
    assert not work.exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"data": None}, "data: "),
        ({"stepz": 3}, "stepz: no such key"),
        ({"epochs": 1}, "give either `epochs` or `steps`"),
        ({"lora_rank": 0}, "lora_rank: "),
        ({"evaluate_every": 2}, "`evaluate_every` has no effect here"),
        ({"anchor": 0.1}, "without `anchor`"),
    ],
)
def test_wrong_options_are_named(wrong: dict[str, Any], said: str, options: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="methods: options of 'mod'") as caught:
        load_method(MethodSettings(method="mod", options={**options, **wrong}))
    assert said in caught.value.message
