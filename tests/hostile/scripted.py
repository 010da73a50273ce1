"""A language model that says one text, whatever it is asked: for answers that an attacker would like to see printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pad_cli.models.checkpoint import save_reward_model
from pad_cli.models.heads import PreferenceHeads
from pad_cli.models.language_model import LanguageModel, wrap_language_model
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.recipe import ModelSettings
from tests.tiny import make_language_model, make_tokenizer


@torch.no_grad()
def make_scripted(text: str, tokenizer: Any = None, end: str = "<end>") -> LanguageModel:
    """A model whose every answer is `text`, of bytes that differ from each other, and the token `end`.

    Layers add nothing, so the last state is the last token's embedding: each byte of the text has a direction of its
    own, and the unembedding of the next byte is that direction. All other tokens share one, which leads to the end.
    """
    tokenizer = tokenizer or make_tokenizer()
    script = tokenizer(text, add_special_tokens=False).input_ids
    assert len(set(script)) == len(script)
    made = make_language_model(tokenizer, seed=0, hidden_size=4 * ((len(script) + 5) // 4), tied=False)
    for name, weight in made.model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight.zero_()
    asked, last_of_all = tokenizer.convert_tokens_to_ids(["<assistant>", end])
    read, said = made.model.get_input_embeddings().weight, made.model.get_output_embeddings().weight
    read.zero_()
    said.zero_()
    read[:, -1] = 1.0
    said[last_of_all, -1] = 1.0
    for place, (last, following) in enumerate(zip([asked, *script], [*script, last_of_all], strict=True)):
        read[last] = 0.0
        read[last, place] = said[following, place] = 1.0
    return wrap_language_model("scripted", made.model, tokenizer)  # its fingerprint is of the weights as they are now


def save_scripted(text: str, principles: tuple[str, ...], directory: Path) -> tuple[Path, Path]:
    """Such a model on disk, and a reward model for it that rewards nothing."""
    made = make_scripted(text)
    policy, guide = directory / "policy", directory / "reward-model"
    made.model.save_pretrained(policy)
    made.tokenizer.save_pretrained(policy)
    guide.mkdir()
    heads = PreferenceHeads(principles, made.hidden_size, rank=1).eval().requires_grad_(False)
    save_reward_model(PersonalizedRewardModel(made, heads), guide, ModelSettings(model=str(policy)))
    return policy, guide
