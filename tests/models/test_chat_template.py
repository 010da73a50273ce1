"""What a chat template refuses, leaves out or opens: nothing of a conversation is lost, and the template is quoted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pad_cli.bench.paths import benchmark_prompts
from pad_cli.decoding.batch import generate_file
from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import DataError
from pad_cli.evaluation.scorers.classifier import fill_template
from pad_cli.models.prompts import check_prompts, encode_prompt
from pad_cli.pairs import load_pairs
from pad_cli.recipe import DataSettings, DecodingSettings, TrainRecipe
from pad_cli.records import BenchmarkItem, Messages
from pad_cli.training.pair_table import gather_training_data
from tests.tiny import make_language_model, make_reward_model, make_tokenizer

TURN = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
ASK = "{% if add_generation_prompt %}<assistant>{% endif %}"
PLAIN = TURN + ASK
NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% endfor %}"
) + PLAIN
SILENT = (
    "{% for m in messages %}{% if m['role'] in ['user', 'assistant'] %}<{{ m['role'] }}>{{ m['content'] }}"
    "{% endif %}{% endfor %}"
) + ASK
IN_TURNS = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% endfor %}"
) + PLAIN
PARTS = (
    "{% for m in messages %}<{{ m['role'] }}>{% for p in m['content'] %}{% if p['type'] == 'text' %}{{ p['text'] }}"
    "{% endif %}{% endfor %}{% endfor %}"
) + ASK
PARTS_NO_SYSTEM = NO_SYSTEM.removesuffix(PLAIN) + PARTS
LAST_ONLY = "<user>{{ messages[-1]['content'] }}" + ASK
THINK = TURN + "{% if add_generation_prompt %}<assistant><think>\n{% endif %}"
CLOSABLE = TURN + (
    "{% if add_generation_prompt %}<assistant><think>\n{% if NAME is defined and not NAME %}</think>\n{% endif %}"
    "{% endif %}"
)


def conversation(*roles: str) -> Messages:
    return tuple({"role": role, "content": f"{role} {number}"} for number, role in enumerate(roles))


def tokenizer_with(template: Any) -> Any:
    tokenizer = make_tokenizer(chat=False)
    tokenizer.chat_template = template
    return tokenizer


def rendered(template: Any, messages: Messages) -> str:
    tokenizer = tokenizer_with(template)
    return str(tokenizer.decode(encode_prompt(tokenizer, messages)))


@pytest.mark.parametrize("template", [NO_SYSTEM, SILENT, IN_TURNS, PARTS_NO_SYSTEM])
def test_system_text_goes_into_the_next_user_turn_where_the_template_takes_no_system_message(
    template: str, capsys: Any
) -> None:
    text = rendered(template, conversation("system", "user", "assistant", "user"))
    assert text == "<user>system 0\n\nuser 1<assistant>assistant 2<user>user 3<assistant>"
    assert capsys.readouterr().err.count("takes no system message") == 1


@pytest.mark.parametrize("template", [PLAIN, PARTS])
def test_a_system_message_stays_where_the_template_takes_it(template: str, capsys: Any) -> None:
    text = rendered(template, conversation("system", "user"))
    assert text == "<system>system 0<user>user 1<assistant>"
    assert not capsys.readouterr().err


def test_each_system_text_goes_into_the_user_turn_that_follows_it() -> None:
    text = rendered(NO_SYSTEM, conversation("system", "system", "user", "assistant", "system", "user"))
    assert text == "<user>system 0\n\nsystem 1\n\nuser 2<assistant>assistant 3<user>system 4\n\nuser 5<assistant>"


def test_prompts_whose_system_text_was_moved_are_counted(capsys: Any) -> None:
    prompts = [("a:1", conversation("user")), ("a:2", conversation("system", "user"))] * 3
    check_prompts(tokenizer_with(NO_SYSTEM), prompts)
    told = capsys.readouterr().err
    assert told.count("takes no system message") == 1
    assert "3 of 6 prompts have their system text in a user turn" in told


@pytest.mark.parametrize(
    ("template", "roles", "words"),
    [
        (NO_SYSTEM, ["system"], "System role not supported"),
        (NO_SYSTEM, ["user", "assistant", "system"], "System role not supported"),
        (IN_TURNS, ["user", "user"], "Conversation roles must alternate"),
        (IN_TURNS, ["system", "user", "assistant", "assistant"], "must alternate"),
        (IN_TURNS, ["assistant", "user"], "must alternate"),
    ],
)
def test_a_refusal_names_place_and_roles_in_the_templates_own_words(
    template: str, roles: list[str], words: str
) -> None:
    tokenizer = tokenizer_with(template)
    with pytest.raises(DataError, match=words) as caught:
        encode_prompt(tokenizer, conversation(*roles), place="rows.jsonl:7")
    expected = f"rows.jsonl:7: The chat template refuses a conversation of {', '.join(roles)}: "
    assert caught.value.message.startswith(expected)
    assert caught.value.hint


@pytest.mark.parametrize("role", ["critic", "assistant"])
def test_a_message_that_the_template_leaves_out_is_refused(role: str) -> None:
    template = SILENT if role == "critic" else LAST_ONLY
    roles = ["user", role, "user"] if role == "critic" else [role, "user"]
    with pytest.raises(DataError, match=rf"leaves message \d out \(role '{role}'\)"):
        rendered(template, conversation(*roles))


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for m in messages %}", "Unexpected end of template"),
        ("{{ messages[0]['content'] + 3 }}", "can only concatenate str"),
        ("{{ messages[0].content.nothing.at_all }}", "has no attribute"),
        ({"rag": PLAIN, "tool_use": PLAIN}, "multiple chat templates with no default"),
    ],
)
def test_a_template_that_takes_no_conversation_is_quoted_and_to_be_mended(template: Any, words: str) -> None:
    tokenizer = tokenizer_with(template)
    with pytest.raises(DataError, match="refuses a conversation of user") as caught:
        encode_prompt(tokenizer, conversation("user"))
    assert words in caught.value.message
    assert "fix the model's chat_template.jinja" in caught.value.hint
    with pytest.raises(DataError, match="refuses a conversation"):
        fill_template("chat", tokenizer, conversation("user"), "x")


def test_a_template_that_refuses_a_certain_text_is_quoted_too() -> None:
    template = "{% if 'secret' in messages[0]['content'] %}{{ raise_exception('No secrets') }}{% endif %}" + PLAIN
    assert rendered(template, conversation("user"))
    with pytest.raises(DataError, match="a conversation of user: No secrets"):
        rendered(template, ({"role": "user", "content": "a secret"},))


def test_a_template_that_reads_only_parts_is_given_parts() -> None:
    for text in ("Explain tides.", "Fine day"):
        assert rendered(PARTS, ({"role": "user", "content": text},)) == f"<user>{text}<assistant>"


def test_a_template_that_loses_the_prompt_is_refused() -> None:
    with pytest.raises(DataError, match=r"leaves message 1 out \(role 'user'\)"):
        rendered("<user>" + ASK, conversation("user"))


@pytest.mark.parametrize("name", ["enable_thinking", "thinking"])
def test_a_thought_that_the_template_opens_is_closed_before_the_answer(name: str) -> None:
    text = rendered(CLOSABLE.replace("NAME", name), conversation("user"))
    assert text == "<user>user 0<assistant><think>\n</think>\n"


def test_variables_of_the_template_win_over_the_closed_thought() -> None:
    tokenizer = tokenizer_with(CLOSABLE.replace("NAME", "enable_thinking"))
    tokens = encode_prompt(tokenizer, conversation("user"), template_options={"enable_thinking": True})
    assert tokenizer.decode(tokens).endswith("<think>\n")


ROW = {"prompt": "How?", "preference": "humorous", "chosen": "Ha.", "rejected": "So."}
SYSTEM_ROW = {**ROW, "prompt": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why?"}]}
REFUSED_ROW = {**ROW, "prompt": [{"role": "user", "content": "A"}, {"role": "user", "content": "B"}]}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def train(path: Path, template: str) -> dict[str, float | int]:
    recipe = TrainRecipe.model_validate(
        {
            "kind": "train-rm",
            "output": "x",
            "backbone": {"model": "x"},
            "data": {"train": str(path)},
            "stages": [{"stage": "heads", "steps": 1}],
        }
    )
    backbone = make_language_model(tokenizer_with(template), seed=0)
    data = load_pairs(DataSettings(train=str(path)), seed=0)
    return dict(gather_training_data(recipe, data, backbone).lengths)


def test_training_counts_moved_system_texts_and_names_the_row_that_a_template_refuses(
    tmp_path: Path, capsys: Any
) -> None:
    path = write(tmp_path / "rows.jsonl", ROW, SYSTEM_ROW)
    assert train(path, IN_TURNS)["systems_moved"] == 1
    assert "1 distinct prompts have their system text in a user turn" in capsys.readouterr().err
    path = write(tmp_path / "rows.jsonl", ROW, SYSTEM_ROW, REFUSED_ROW)
    with pytest.raises(DataError, match=r"rows\.jsonl:3: The chat template refuses a conversation"):
        train(path, IN_TURNS)


def test_training_warns_of_a_thought_that_cannot_be_closed(tmp_path: Path, capsys: Any) -> None:
    path = write(tmp_path / "rows.jsonl", ROW)
    for template, told in (
        (THINK, "cannot close it"),
        (CLOSABLE.replace("NAME", "thinking"), "it is closed before the answer"),
    ):
        train(path, template)
        assert told in " ".join(capsys.readouterr().err.split())
    train(path, PLAIN)
    assert "thought" not in capsys.readouterr().err


@pytest.fixture
def engine() -> PadEngine:
    policy = make_language_model(tokenizer_with(IN_TURNS), seed=0)
    return PadEngine(policy, make_reward_model(policy))


def test_a_file_of_prompts_is_answered_or_refused_before_the_first_answer(
    engine: PadEngine, tmp_path: Path, capsys: Any
) -> None:
    target, settings = tmp_path / "answers.jsonl", DecodingSettings(max_new_tokens=2)
    path = write(tmp_path / "rows.jsonl", ROW, REFUSED_ROW)
    with pytest.raises(DataError, match=r"rows\.jsonl:2: The chat template refuses a conversation"):
        generate_file(engine, path, target, [], settings)
    assert not target.exists()
    assert generate_file(engine, write(path, ROW, SYSTEM_ROW), target, [], settings) == 2
    assert "1 of 2 prompts have their system text in a user turn" in capsys.readouterr().err


def test_a_benchmark_names_the_row_that_a_template_refuses(engine: PadEngine) -> None:
    prompt = conversation("user", "user")
    for place, named in (("rows.jsonl:2", "rows.jsonl:2"), ("", "an/id")):
        item = BenchmarkItem("an/id", "single", "x", prompt, ("humorous",), place=place)
        with pytest.raises(DataError, match=f"{named}: The chat template refuses a conversation"):
            benchmark_prompts(engine, [item], 1)
