"""Answers in pieces with their rewards: the pieces are the answer, and the rewards the reward model's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from pad_cli.evaluation import sequence_rewards
from pad_cli.evaluation.contract import Answer
from pad_cli.evaluation.outputs import choose_items
from pad_cli.evaluation.scorers.likelihood import reward as reward_scorer
from pad_cli.evaluation.sequence_rewards import RewardedText, rewarded_texts
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.reward_model import PersonalizedRewardModel, PromptRewardModel
from pad_cli.records import BenchmarkItem, as_messages
from pad_cli.system.runs import ResultLog
from tests.evaluation.methods.subjects import make_items, make_subject
from tests.models.test_prompt_reward_model import make_head
from tests.tiny import make_language_model, make_reward_model, make_tokenizer

TEXTS = ("Begin.", "", "naïve 🦜🦜 日本\n\n  x", "  two spaces before, one after ")


@pytest.fixture
def log(tmp_path: Path) -> ResultLog:
    return ResultLog(tmp_path / "tokens.jsonl")


def samples(texts: tuple[str, ...] = TEXTS) -> list[Answer]:
    return [Answer(item, text) for item, text in zip(make_items(), texts, strict=True)]


def joined(pieces: RewardedText | None) -> str:
    assert pieces is not None
    return "".join(text for text, _ in pieces)


def make_byte_fallback_tokenizer() -> Any:
    """Words of letters as SentencePiece has them; a character that is none of them is a token a byte."""
    letters = ["▁", *map(chr, range(33, 127))]
    vocabulary = ["<unk>", "<end>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, "▁B", "▁x"]
    merges = [("▁", "B"), ("▁", "x")]
    numbers = {token: number for number, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(vocab=numbers, merges=merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="never")])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<end>", eos_token="<end>", unk_token="<unk>")


@pytest.mark.parametrize(
    "tokenizer",
    [make_tokenizer(), make_tokenizer(chat=False), make_byte_fallback_tokenizer()],
    ids=["chat", "plain", "byte fallback"],
)
def test_the_pieces_are_the_answer_and_sum_up_to_its_reward(tokenizer: Any, log: ResultLog) -> None:
    model = make_language_model(tokenizer, seed=0)
    subject = make_subject(model, replace(make_reward_model(model), calibration=3.0))
    found = rewarded_texts(subject, samples(), log)
    assert [joined(pieces) for pieces in found] == list(TEXTS)
    sums = [sum(reward for _, reward in pieces or []) for pieces in found]
    assert sums == pytest.approx([each.value for each in reward_scorer().score(samples(), subject)], abs=0.02)
    assert all(pieces and pieces[-1][0] == "" and all(text for text, _ in pieces[:-1]) for pieces in found)
    assert len(found[2] or []) >= len("naïve 🦜🦜 日本") + 1, "cut at every character"


@pytest.mark.parametrize("tokenizer", [make_tokenizer(), make_byte_fallback_tokenizer()], ids=["chat", "byte fallback"])
def test_a_character_of_several_tokens_is_one_piece_with_all_their_rewards(tokenizer: Any, log: ResultLog) -> None:
    model = make_language_model(tokenizer, seed=0)
    reward_model = make_reward_model(model)
    item = make_items()[0]
    (pieces,) = rewarded_texts(make_subject(model, reward_model), [Answer(item, "a🦜b")], log)
    own = reward_model.token_rewards(item.prompt, "a🦜b", reward_model.preference(item.preference)).tolist()
    first = len(own) - 6  # tokens before the bird: "a", and in front of it a space where there is no chat template
    expected = [sum(own[:first]), sum(own[first : first + 4]), own[-2], own[-1]]
    assert pieces is not None
    assert [text for text, _ in pieces] == ["a", "🦜", "b", ""]
    assert [reward for _, reward in pieces] == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([(0, 1), (2, 3)], [("a", 1.0), (" b", 2.0), ("", 4.0)]),
        ([(0, 0), (0, 1), (1, 3)], [("a", 3.0), (" b", 4.0), ("", 8.0)]),
        ([(0, 1), (1, 3), (3, 3)], [("a", 1.0), (" b", 6.0), ("", 8.0)]),
        ([(0, 2), (1, 3)], [("a b", 3.0), ("", 4.0)]),
        ([(0, 1)], [("a b", 1.0), ("", 2.0)]),
    ],
    ids=["uncovered space", "no text first", "no text last", "overlapping", "uncovered rest"],
)
def test_every_letter_has_its_place_whatever_a_tokenizer_says_of_its_tokens(
    spans: list[tuple[int, int]], expected: RewardedText
) -> None:
    rewards = [float(2**number) for number in range(len(spans) + 1)]
    assert sequence_rewards._pieces("a b", spans, rewards) == expected


def test_what_the_authors_form_cannot_read_is_left_out_and_said(
    policy: LanguageModel, other_policy: LanguageModel, log: ResultLog, capsys: pytest.CaptureFixture[str]
) -> None:
    model = PromptRewardModel(other_policy, make_head(other_policy.hidden_size))
    items = [BenchmarkItem(name, "single", name, as_messages("Why?"), (name,)) for name in ("text:kind", "text:kind=2")]
    asked = [Answer(item, "Because.") for item in items]
    subject = make_subject(policy, model)
    read, refused = rewarded_texts(subject, asked, log)
    assert read is not None
    (score,) = reward_scorer().score(asked[:1], subject)
    assert sum(reward for _, reward in read) == pytest.approx(score.value, abs=0.01)
    assert refused is None
    assert (
        "No token rewards for 1 of 2 answers shown: This reward model reads preferences in the prompt"
        in capsys.readouterr().err
    )
    nearer = make_language_model(policy.tokenizer, seed=5)
    assert rewarded_texts(make_subject(nearer, model), asked[:1], log) != [read], "relative to another policy"
    foreign = make_subject(make_language_model(make_tokenizer(extra=("<extra>",)), seed=0), model)
    assert rewarded_texts(foreign, asked, log) == [None, None]
    assert "another vocabulary" in capsys.readouterr().err


def test_an_answer_beyond_the_backbones_positions_has_no_rewards(
    policy: LanguageModel, reward_model: PersonalizedRewardModel, log: ResultLog
) -> None:
    longest = policy.model.config.max_position_embeddings
    found = rewarded_texts(make_subject(policy, reward_model), samples(("x" * longest, "a", "b", "c")), log)
    assert [pieces is None for pieces in found] == [True, False, False, False]


def test_a_tokenizer_that_does_not_say_where_tokens_stand_gives_no_rewards(log: ResultLog) -> None:
    model = make_language_model(ByT5Tokenizer(), seed=0)
    assert rewarded_texts(make_subject(model, make_reward_model(model)), samples(), log) == [None] * 4


def test_what_was_rewarded_is_not_rewarded_again_unless_the_reward_model_changed(
    policy: LanguageModel, reward_model: PersonalizedRewardModel, log: ResultLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = make_subject(policy, reward_model)
    first = rewarded_texts(subject, samples(), log)
    other = rewarded_texts(make_subject(policy, make_reward_model(policy, seed=3)), samples(), log)
    assert other != first
    monkeypatch.setattr(sequence_rewards, "token_rewards", lambda *_: pytest.fail("rewarded again"))
    assert rewarded_texts(subject, samples(), ResultLog(log.path)) == first


def test_items_are_chosen_from_every_policy_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for 7 answers, two systems a policy: three items, of which the first policy has two."""
    monkeypatch.setattr("pad_cli.evaluation.outputs._ANSWERS", 7)
    items = make_items()
    assert choose_items({"home": items, "away": items}, systems=2) == [("home", 0), ("away", 0), ("home", 1)]
