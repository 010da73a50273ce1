"""The token that ends a turn ends an answer, however it is decoded, and is no part of its text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AddedToken

from pad_cli.decoding.batch import generate_file
from pad_cli.decoding.engine import PadEngine
from pad_cli.decoding.mixture import Expert, generate_mixture
from pad_cli.decoding.processor import PreferenceLogitsProcessor
from pad_cli.models.heads import PreferenceHeads
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_answer, encode_prompt
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.models.vocabulary_bridge import VocabularyBridge
from pad_cli.preference import Preference
from pad_cli.recipe import DecodingSettings
from pad_cli.records import as_messages
from tests.hostile.scripted import make_scripted
from tests.tiny import make_language_model, make_tokenizer

TEXT = "Fine"
SETTINGS = DecodingSettings(max_new_tokens=12)


@dataclass(frozen=True)
class Kind:
    """How a model says that a turn ends.

    Attributes:
        special: whether the tokenizer flags the token as special.
        template: what the chat template puts after an answer.
        configured: whether the generation configuration lists the token.
    """

    special: bool
    template: str
    configured: bool


KINDS = {
    "a template whose token is not flagged": Kind(False, "<turn_end>\n", False),
    "a template whose token the configuration does not know": Kind(True, "<turn_end>\n", False),
    "a template with white space before it": Kind(True, " <turn_end>", False),
    "a configuration that lists a token which is not flagged": Kind(False, "", True),
}


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
def policy(kind: Kind) -> LanguageModel:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([AddedToken("<turn_end>", special=kind.special)])
    tokenizer.chat_template = tokenizer.chat_template.replace("'<end>'", repr(kind.template))
    made = make_scripted(TEXT, tokenizer, "<turn_end>")
    if kind.configured:
        made.model.generation_config.eos_token_id = [tokenizer.eos_token_id, len(tokenizer) - 1]
    return made


@pytest.fixture
def engine(policy: LanguageModel) -> PadEngine:
    heads = PreferenceHeads(("formal",), policy.hidden_size, rank=1).eval().requires_grad_(False)  # rewards nothing
    return PadEngine(policy, PersonalizedRewardModel(policy, heads))


FORMAL = Preference({"formal": 1.0}, {})


def test_it_ends_an_answer_and_is_not_its_text(engine: PadEngine, tmp_path: Path) -> None:
    for preferences in (None, [FORMAL]):
        answer = engine.generate(["Hi"], preferences, SETTINGS)[0]
        assert (answer.text, answer.finish_reason) == (TEXT, "stop")
        assert len(answer.token_ids) == len(TEXT) + 1
    assert "".join(engine.stream("Hi", FORMAL, SETTINGS)) == TEXT
    prompts, answers = tmp_path / "prompts.jsonl", tmp_path / "answers.jsonl"
    prompts.write_text('{"prompt": "Hi"}\n{"prompt": "Why?"}\n', encoding="utf-8")
    generate_file(engine, prompts, answers, [], SETTINGS)
    rows = [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()]
    assert [row["text"] for row in rows] == [TEXT, TEXT]


def test_it_ends_the_answer_of_a_mixture_and_of_transformers_own_generate(engine: PadEngine) -> None:
    policy, prompt = engine.policy, encode_prompt(engine.policy.tokenizer, as_messages("Hi"))
    answer = generate_mixture([Expert(policy, [prompt], [1.0])], SETTINGS, ["0"])[0]
    assert engine.read_answer(answer).text == TEXT
    assert engine.reward_model is not None
    whole = policy.model.generate(
        torch.tensor([prompt]),
        logits_processor=[PreferenceLogitsProcessor(engine.reward_model, [FORMAL])],
        eos_token_id=sorted(policy.end_tokens),
        max_new_tokens=12,
    )
    assert whole[0, len(prompt) :].tolist() == answer


def test_training_ends_answers_with_the_same_token(kind: Kind, policy: LanguageModel) -> None:
    trained = encode_answer(policy.tokenizer, TEXT)
    assert trained[-1] in policy.end_tokens
    if kind.template:
        assert tuple(trained) == PadEngine(policy).generate(["Hi"], None, SETTINGS)[0].token_ids
        assert policy.tokenizer.convert_ids_to_tokens(trained[-1]) == "<turn_end>"


def test_a_backbone_with_another_vocabulary_never_reads_it_as_text(policy: LanguageModel) -> None:
    backbone = make_language_model(make_tokenizer(extra=("more",)), seed=0, hidden_size=8)
    written = encode_answer(policy.tokenizer, TEXT)
    bridge = VocabularyBridge(policy, backbone)
    assert bridge.text(written) == TEXT
    assert bridge.tokens(written) == encode_answer(backbone.tokenizer, TEXT)
