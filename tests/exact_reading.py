"""What "read exactly" means: the logits of a model's own `forward`, however the text was cut, padded and remembered."""

from __future__ import annotations

from typing import Any

import torch
from transformers import GenerationConfig

from pad_cli.decoding.engine import PadEngine
from pad_cli.decoding.session import CachedSession, left_padded
from pad_cli.models.language_model import LanguageModel
from pad_cli.recipe import DecodingSettings
from tests.token_prompts import generate_all

GENERATE_DIFFERS = {
    "blt": "it fails: there is no number of layers for a cache",
    "moshi": "its cache is cut at a window that `forward` does not have",
    **dict.fromkeys(
        ("camembert", "data2vec-text", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
        "it counts positions from 0, `forward` from the padding token's number",
    ),
}
"""Architectures whose `generate` in transformers does not write what their `forward` says, and why."""

_LENGTH, _PROMPTS, _STEPS = 20, (14, 9, 3), 6  # longer than the sliding windows of 8


def assert_exact(model: LanguageModel) -> None:
    """Single rows, a padded batch, and token by token with a row leaving: to 1e-4, in float32."""
    texts = torch.randint(10, 250, (3, _LENGTH), generator=torch.Generator().manual_seed(1)).tolist()
    own = [_own_logits(model.model, text) for text in texts]

    whole = torch.tensor([texts[0]])
    _close(model.head(model.hidden_states(whole, torch.ones_like(whole))[0]), own[0])

    rows = [text[:length] for text, length in zip(texts, (_LENGTH, 11, 3), strict=True)]
    states = model.hidden_states(*left_padded(model, rows))
    for row, state, logits in zip(rows, states, own, strict=True):
        _close(model.head(state[_LENGTH - len(row) :]), logits[: len(row)])

    session = CachedSession(model, [text[:length] for text, length in zip(texts, _PROMPTS, strict=True)])
    left = [0, 1, 2]
    for step in range(_STEPS + 1):
        places = [_PROMPTS[row] - 1 + step for row in left]
        _close(
            model.head(session.hidden), torch.stack([own[row][place] for row, place in zip(left, places, strict=True)])
        )
        if step == _STEPS // 2:
            left = [0, 2]
            session.keep(torch.tensor(left))
        if step < _STEPS:
            session.push(torch.tensor([texts[row][_PROMPTS[row] + step] for row in left]))


def assert_greedy_is_generates(model: LanguageModel) -> None:
    """Two prompts of different length in a batch, each against transformers' own `generate` of it alone."""
    prompts = torch.randint(10, 250, (2, 12), generator=torch.Generator().manual_seed(2)).tolist()
    prompts[1] = prompts[1][:5]
    ours = generate_all(PadEngine(model), prompts, None, DecodingSettings(max_new_tokens=8))
    model.model.generation_config = GenerationConfig(eos_token_id=None, pad_token_id=1)  # no end that is forced
    for prompt, written in zip(prompts, ours, strict=True):
        tokens = torch.tensor([prompt])
        answer = model.model.generate(
            input_ids=tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=8, do_sample=False
        )
        assert written == answer[0, len(prompt) :].tolist()


@torch.no_grad()
def _own_logits(model: Any, text: list[int]) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=torch.tensor([text]), use_cache=False).logits[0]
    return logits


def _close(ours: torch.Tensor, own: torch.Tensor) -> None:
    torch.testing.assert_close(ours, own, atol=1e-4, rtol=1e-4)
