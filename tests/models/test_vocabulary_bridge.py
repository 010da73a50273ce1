"""Tokens across vocabularies: token by token, they are always those of the whole text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from pad_cli.errors import VocabularyError
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.vocabulary_bridge import VocabularyBridge
from tests.decoding.slow_bridge import SEA, answer_tokens, byte_pairs, make_kinds
from tests.tiny import make_language_model, make_tokenizer

WORDS = [
    "the",
    "harbour",
    " ",
    "  ",
    "\n",
    "é",
    "日本",
    "🦜",
    "Learning",
    ".",
    ",",
    "'s",
    "résumé",
    "123",
    "<end>",
    "\ufffd",
]


def make_models() -> dict[tuple[str, bool], LanguageModel]:
    """A tiny model for each kind of tokenizer, with and without a chat template."""
    return {
        (kind, chat): make_language_model(tokenizer, seed=0, hidden_size=8)
        for chat in (True, False)
        for kind, tokenizer in make_kinds(chat).items()
    }


MODELS = make_models()
POLICIES = ("bytes", "byte pairs", "fewer bytes", "unigram", "fallback pairs")
BACKBONES = tuple(
    (kind, chat) for kind in ("bytes", "byte pairs", "unigram", "fallback pairs") for chat in (True, False)
)


def write(policy: LanguageModel, backbone: LanguageModel, tokens: list[int], others: list[int]) -> None:
    """Write an answer token by token; compare its tokens, and those of another candidate, with the slow ones."""
    bridge = VocabularyBridge(policy, backbone)
    for count, token in enumerate(tokens):
        for candidate in (token, others[count % len(others)]):
            written = [*tokens[:count], candidate]
            assert bridge.tokens(written) == answer_tokens(policy, backbone, written)


@settings(max_examples=150, deadline=None)
@given(
    text=st.one_of(
        st.text(max_size=60),
        st.lists(st.sampled_from(WORDS), max_size=60).map("".join),
        st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join),
        st.builds(str.__mul__, st.text(min_size=1, max_size=5), st.integers(0, 20)),
    ),
    kind=st.sampled_from(POLICIES),
    backbone=st.sampled_from(BACKBONES),
    others=st.lists(st.integers(0, 100), min_size=1, max_size=5),
)
def test_token_by_token_any_text_has_the_tokens_of_the_whole(
    text: str, kind: str, backbone: tuple[str, bool], others: list[int]
) -> None:
    policy = MODELS[kind, True]
    tokens = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
    write(policy, MODELS[backbone], [*tokens, policy.tokenizer.eos_token_id], others)


@settings(max_examples=100, deadline=None)
@given(
    tokens=st.lists(st.integers(0, 10_000), max_size=60),
    kind=st.sampled_from(POLICIES),
    backbone=st.sampled_from(BACKBONES),
)
@example(tokens=[450, 133, 0, 0, 0, 1], kind="unigram", backbone=("bytes", True))  # padding after half a character
def test_tokens_that_are_no_valid_text_have_the_tokens_of_what_the_policy_shows(
    tokens: list[int], kind: str, backbone: tuple[str, bool]
) -> None:
    policy = MODELS[kind, False]
    write(policy, MODELS[backbone], [token % policy.vocabulary_size for token in tokens], [5])


@pytest.mark.parametrize("kind", ["byte pairs", "unigram"])
def test_a_character_counts_once_it_is_whole(kind: str) -> None:
    policy, backbone = MODELS[kind, True], MODELS["bytes", True]
    bridge = VocabularyBridge(policy, backbone)
    tokens = policy.tokenizer("aé🦜", add_special_tokens=False)["input_ids"]
    texts = [bridge.text(tokens[: count + 1]) for count in range(len(tokens))]
    assert {"a", "aé", "aé🦜"} <= {*texts} <= {"", "a", "aé", "aé🦜"}
    assert len(texts) > len({*texts}), "some tokens should hold a part of a character"
    for count, text in enumerate(texts):
        expected = backbone.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert bridge.tokens(tokens[: count + 1]) == expected


def test_a_whole_character_stays_while_the_next_one_is_unfinished() -> None:
    """A decoder of byte fallback shows neither of them then."""
    policy, backbone = MODELS["unigram", True], MODELS["bytes", True]
    tokens = policy.tokenizer("日本", add_special_tokens=False)["input_ids"]
    assert policy.tokenizer.decode(tokens[:-1]).strip("\ufffd ") == ""
    bridge = VocabularyBridge(policy, backbone)
    assert bridge.text(tokens[:-1]) == "日"
    assert bridge.text([*tokens[:-1], policy.tokenizer.eos_token_id]) == "日"


def test_an_end_of_sequence_becomes_the_backbones_end_of_turn() -> None:
    template = make_tokenizer().chat_template.replace("'<end>'", "'<user>'")
    tokenizer = byte_pairs(SEA, 40, chat=True)
    tokenizer.chat_template = template
    backbone = make_language_model(tokenizer, seed=0, hidden_size=8)
    policy = make_language_model(make_kinds(False)["unigram"], seed=0, hidden_size=8)
    policy.model.generation_config.eos_token_id = [1, 3]
    bridge = VocabularyBridge(policy, backbone)
    for end in (1, 3):
        tokens = [*policy.tokenizer("and then", add_special_tokens=False)["input_ids"], end]
        expected = tokenizer("and then", add_special_tokens=False)["input_ids"]
        assert bridge.tokens(tokens) == [*expected, tokenizer.convert_tokens_to_ids("<user>")]


def lower_case() -> Any:
    tokenizer = byte_pairs(SEA, 40, chat=True)
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    return tokenizer


def without_bytes() -> Any:
    """Knows the characters of a text, and no other."""
    pieces = ["<pad>", "<end>", "<unk>", "▁", *sorted(set(SEA + "TCx=1,0öß") - {" "}), "\n"]
    tokenizer = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", unk_token="<unk>")


def words_only() -> Any:
    pieces = ["<pad>", "<end>", "<unk>", *sorted(set(SEA.split()))]
    tokenizer = Tokenizer(models.WordLevel({piece: number for number, piece in enumerate(pieces)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", unk_token="<unk>")


@pytest.mark.parametrize("make", [lower_case, without_bytes, words_only])
def test_a_backbone_whose_tokenizer_changes_text_is_refused(make: Any) -> None:
    backbone = make_language_model(make(), seed=0, hidden_size=8)
    with pytest.raises(VocabularyError, match="does not keep text") as caught:
        VocabularyBridge(MODELS["byte pairs", True], backbone)
    assert caught.value.hint
    VocabularyBridge(backbone, MODELS["byte pairs", True])  # as a policy it will do
