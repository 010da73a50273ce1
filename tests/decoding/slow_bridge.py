"""Tokenizers that cut text differently, and bridged decoding written slowly: all text and all tokens anew, no cache."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from pad_cli.equation import guided_scores, select_candidates, withhold_repeats
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_prompt
from pad_cli.models.reward_model import RewardModel
from pad_cli.preference import Preference
from pad_cli.recipe import DecodingSettings
from pad_cli.records import as_messages
from tests.decoding.slow import last_state
from tests.tiny import make_tokenizer

SEA = (
    "The harbour wakes before the town does. Nets hang along the wall to dry, and the boats that went out at night "
    "come home with the tide. A sailor reads the sky, then the water, then the faces of the others. What is the wind "
    "doing? How far is it to the island? Nobody asks twice; the answer is in the sails. In the café by the stairs an "
    "old woman writes letters to 日本, one each week, and never says to whom."
)
TOWN = (
    "Every market day the bakers start at four. Dough rests under cloth, ovens glow, and someone always burns a tray. "
    "Learning this trade takes years: you need patience, strong arms and a good ear, because bread tells you when it "
    "is ready. Ask for a résumé and they laugh. A visitor from 京都 once tried to help; he was told to begin with the "
    "floor."
)
_SPECIALS = ["<pad>", "<end>", "<user>", "<assistant>"]
_BYTES = [f"<0x{number:02X}>" for number in range(256)]
_SPACED = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]


def byte_pairs(text: str, merges: int, *, chat: bool, all_bytes: bool = True) -> Any:
    """Byte-level BPE learnt from a text; without `all_bytes` it has those of the text alone."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet()) if all_bytes else []
    found = len(set(text.encode()))
    trainer = trainers.BpeTrainer(
        vocab_size=len(_SPECIALS) + (len(alphabet) or found) + merges,
        special_tokens=_SPECIALS,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    return _wrapped(tokenizer, chat)


def unigram(text: str, size: int, *, chat: bool) -> Any:
    """SentencePiece's kind: pieces with scores, spaces shown as ▁, bytes for what has no piece.

    Its pieces are the most frequent parts of words; `tokenizers`' own training gives others in every process.
    """
    words = [f"▁{word}" for word in text.split() if word.isascii()]
    parts = Counter(
        word[start:end] for word in words for start in range(len(word)) for end in range(start + 1, len(word) + 1)
    )
    single = [piece for piece in parts if len(piece) == 1]
    longer = sorted((piece for piece in parts if len(piece) > 1), key=lambda piece: (-parts[piece] * len(piece), piece))
    pieces = [(piece, math.log(parts[piece] / parts.total())) for piece in [*sorted(single), *longer[:size]]]
    specials = [(piece, 0.0) for piece in [*_SPECIALS, "<unk>"]] + [(piece, -20.0) for piece in _BYTES]
    tokenizer = Tokenizer(models.Unigram(specials + pieces, unk_id=len(_SPECIALS), byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(_SPACED)
    return _wrapped(tokenizer, chat)


def fallback_pairs(text: str, merges: int, *, chat: bool) -> Any:
    """BPE as Llama 2 has it: no words are split off, a space is put in front of every text, bytes for the unknown."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(_SPACED)
    specials, found = [*_SPECIALS, "<unk>", *_BYTES], len(set(text)) + 1
    trainer = trainers.BpeTrainer(
        vocab_size=len(specials) + found + merges, special_tokens=specials, max_token_length=12, show_progress=False
    )
    tokenizer.train_from_iterator(text.split(" "), trainer)
    return _wrapped(tokenizer, chat)


def _wrapped(tokenizer: Tokenizer, chat: bool) -> Any:
    specials = {"pad_token": "<pad>", "eos_token": "<end>", "additional_special_tokens": ["<user>", "<assistant>"]}
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **specials)
    if chat:
        wrapped.chat_template = make_tokenizer().chat_template
    return wrapped


def make_kinds(chat: bool) -> dict[str, Any]:
    """A tokenizer of every kind, each learnt from another text or to another size than its neighbours."""
    return {
        "bytes": make_tokenizer(chat=chat),
        "byte pairs": byte_pairs(SEA, 150, chat=chat),
        "fewer bytes": byte_pairs(TOWN, 60, chat=chat, all_bytes=False),
        "unigram": unigram(TOWN, 120, chat=chat),
        "fallback pairs": fallback_pairs(SEA + " " + TOWN, 90, chat=chat),
    }


def whole_text(tokenizer: Any, tokens: Sequence[int]) -> str:
    """The whole characters of an answer: up to three bytes of another may follow them, and special tokens anywhere."""
    tokens = [token for token in tokens if token not in tokenizer.all_special_ids]
    beginnings = [list(tokens[:count]) for count in range(max(0, len(tokens) - 4), len(tokens) + 1)]
    shown = [
        tokenizer.decode(beginning, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for beginning in beginnings
    ]
    return str(max((text.rstrip("\N{REPLACEMENT CHARACTER}") for text in shown), key=len)).lstrip()


def answer_tokens(policy: LanguageModel, backbone: LanguageModel, answer: Sequence[int]) -> list[int]:
    """The backbone's tokens of an answer in the policy's tokens."""
    text = whole_text(policy.tokenizer, [token for token in answer if token not in policy.end_tokens])
    tokens: list[int] = []
    if text:
        start = "" if backbone.tokenizer.chat_template else " "
        tokens += backbone.tokenizer(start + text, add_special_tokens=False)["input_ids"]
    if answer and answer[-1] in policy.end_tokens:
        tokens.append(backbone.tokenizer.convert_tokens_to_ids("<end>"))
    return tokens


def slow_reward(model: RewardModel, prompt: str, tokens: Sequence[int], preference: Preference) -> float:
    """The sum of the rewards of an answer's tokens, all read at once; the policy's share, if any, is left out."""
    backbone = model.backbone
    context = encode_prompt(backbone.tokenizer, model.prompt(as_messages(prompt), preference))
    row = torch.tensor([[*context, *tokens]])
    states = backbone.hidden_states(row, torch.ones_like(row))[0, len(context) - 1 : -1]
    weights = model.weights([preference]).expand(len(tokens), -1)
    rewards = backbone.head(states + model.shift(states, weights)).log_softmax(-1)
    if model.reference == "state":
        rewards = rewards - backbone.head(states).log_softmax(-1)
    return math.fsum(float(rewards[place, token]) for place, token in enumerate(tokens))


@torch.inference_mode()
def slow_rewards(
    policy: LanguageModel,
    model: RewardModel,
    prompt: str,
    answer: Sequence[int],
    candidates: Sequence[int],
    preference: Preference,
) -> torch.Tensor:
    """What each of C candidates adds to the reward of an answer: (C,)."""
    before = slow_reward(model, prompt, answer_tokens(policy, model.backbone, answer), preference)
    after = [
        slow_reward(model, prompt, answer_tokens(policy, model.backbone, [*answer, candidate]), preference)
        for candidate in candidates
    ]
    return torch.tensor(after, dtype=torch.float32) - before


@torch.inference_mode()
def slow_bridged(
    policy: LanguageModel, model: RewardModel, prompt: str, preference: Preference, settings: DecodingSettings
) -> tuple[int, ...]:
    """Tokens of the guided greedy answer to one prompt."""
    context = encode_prompt(policy.tokenizer, as_messages(prompt))
    weight = torch.tensor([settings.guidance_weight * model.calibration])
    answer: list[int] = []
    while len(answer) < settings.max_new_tokens and not (answer and answer[-1] in policy.end_tokens):
        logits = policy.head(last_state(policy, [*context, *answer]))
        candidates, log_probs = select_candidates(logits, settings.candidates)
        rewards = slow_rewards(policy, model, prompt, answer, candidates[0].tolist(), preference)[None]
        if model.reference == "policy":
            rewards = rewards - log_probs
        history = torch.tensor([answer], dtype=torch.long)
        rewards = withhold_repeats(rewards, log_probs, candidates, history, settings.reward_ngram)
        answer.append(int(candidates[0, guided_scores(log_probs, rewards, weight)[0].argmax()]))
    return tuple(answer)
