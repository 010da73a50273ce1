"""Answers end where the models' positions end, whichever way they are decoded; longer prompts are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from pad_cli.decoding.batch import generate_file
from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import DataError
from pad_cli.models.language_model import LanguageModel, wrap_language_model
from pad_cli.recipe import DecodingSettings
from tests.tiny import make_reward_model, make_tokenizer

LIMIT = 24
LONG = DecodingSettings(max_new_tokens=100, batch_size=4)
CHAT = 2  # tokens of the template around a prompt
PROMPTS = ["a", "bcdefghij", "k" * (LIMIT - CHAT - 1)]


def gpt2(tokenizer: Any, width: int = 16, positions: int = LIMIT) -> LanguageModel:
    """Its positions are a table: one beyond it is an IndexError."""
    torch.manual_seed(width)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=positions, n_embd=width, n_layer=1, n_head=2, initializer_range=0.3
    )
    model = GPT2LMHeadModel(config).eval().requires_grad_(False)
    model.generation_config.eos_token_id = None
    return wrap_language_model("small", model, tokenizer)


@pytest.fixture(scope="module")
def endless() -> Any:
    """A tokenizer whose end of sequence no model says, so that only the limit ends an answer."""
    tokenizer = make_tokenizer(extra=("<never>",))
    tokenizer.eos_token = "<never>"
    return tokenizer


@pytest.mark.parametrize("path", ["none", "fused", "separate", "speculative", "bridged"])
def test_an_answer_ends_at_the_limit_of_its_own_row(endless: Any, path: str) -> None:
    """24 positions: a prompt of 3 tokens leaves 21, one of 11 leaves 13, and one of 23 leaves one."""
    policy = gpt2(endless)
    backbone = policy
    if path in ("separate", "speculative"):
        backbone = gpt2(endless, width=8)
    elif path == "bridged":
        backbone = gpt2(make_tokenizer(extra=("<other>", "<more>")), width=8)
    settings = LONG.model_copy(update={"draft_tokens": 3 if path == "speculative" else 0})
    engine = PadEngine(policy, None if path == "none" else make_reward_model(backbone))
    preferences = None if path == "none" else [engine.preference(["humorous"])] * len(PROMPTS)
    answers = engine.generate(PROMPTS, preferences, settings)
    assert [answer.finish_reason for answer in answers] == ["length"] * 3
    lengths = [len(answer.token_ids) for answer in answers]
    if path == "bridged":  # whose backbone may need fewer tokens or more, and ends the answer where it is full
        assert all(0 < found <= most for found, most in zip(lengths, (21, 13, 1), strict=True))
    else:
        assert lengths == [21, 13, 1]


def test_the_smaller_of_two_models_ends_the_answer(endless: Any) -> None:
    engine = PadEngine(gpt2(endless, positions=100), make_reward_model(gpt2(endless, width=8)))
    (answer,) = engine.generate(["a"], [engine.preference(["humorous"])], LONG)
    assert (len(answer.token_ids), answer.finish_reason) == (21, "length")


def test_rows_at_their_limit_leave_the_others_as_they_are(endless: Any) -> None:
    engine = PadEngine(gpt2(endless))
    together = [answer.text for answer in engine.generate(PROMPTS, None, LONG)]
    assert together == [engine.generate([prompt], None, LONG)[0].text for prompt in PROMPTS]


def test_a_longer_prompt_is_refused_and_the_limit_named(endless: Any) -> None:
    engine = PadEngine(gpt2(endless))
    too_long = "k" * (LIMIT - CHAT)
    with pytest.raises(DataError, match=r"Prompt 2 of 2 has 24 tokens; 'small' reads at most 24") as caught:
        engine.generate(["a", too_long], None, LONG)
    assert caught.value.hint
    with pytest.raises(DataError, match="24 tokens"):
        list(engine.stream(too_long, None, LONG))


def test_a_file_names_the_row_before_anything_is_answered(endless: Any, tmp_path: Path) -> None:
    source, target = tmp_path / "prompts.jsonl", tmp_path / "answers.jsonl"
    source.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in ("a", "k" * 40)))
    engine = PadEngine(gpt2(endless), make_reward_model(gpt2(endless)))
    with pytest.raises(DataError, match=r"prompts.jsonl:2, field 'prompt': .* at most 24"):
        generate_file(engine, source, target, [], LONG)
    assert not target.exists()
