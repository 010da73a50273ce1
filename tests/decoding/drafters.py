"""Models that draft for a policy, better or worse, and a count of what a model reads."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

import torch

from pad_cli.decoding.engine import PadEngine
from pad_cli.models.language_model import LanguageModel, wrap_language_model
from tests.tiny import make_reward_model

DRAFTERS = ("always right", "mostly right", "seldom right", "always wrong")


def stops(model: LanguageModel) -> LanguageModel:
    """Let one token in seven end an answer, so that rows end at different steps."""
    model.model.generation_config.eos_token_id = list(range(1, model.vocabulary_size, 7))
    return model


def disturbed(model: LanguageModel, noise: float) -> LanguageModel:
    """Another model that mostly wants what this one wants: noise on every weight."""
    torch.manual_seed(1)
    other = copy.deepcopy(model.model)
    for parameter in other.parameters():
        parameter.add_(noise * torch.randn_like(parameter))
    return wrap_language_model(f"{model.name} disturbed", other, model.tokenizer)


def contrary(model: LanguageModel) -> LanguageModel:
    """A model that wants least what this one wants most."""
    other = copy.deepcopy(model.model)
    head = copy.deepcopy(other.get_output_embeddings())
    head.weight.neg_()
    other.set_output_embeddings(head)
    return wrap_language_model(f"not {model.name}", other, model.tokenizer)


def drafter(kind: str, policy: LanguageModel) -> LanguageModel:
    if kind == "always right":
        return policy
    if kind == "always wrong":
        return contrary(policy)
    return disturbed(policy, 0.01 if kind == "mostly right" else 0.1)


def make_engine(kind: str, policy: LanguageModel) -> PadEngine:
    return PadEngine(policy, make_reward_model(drafter(kind, policy)))


@contextlib.contextmanager
def forwards(model: LanguageModel) -> Iterator[list[tuple[int, int]]]:
    """Rows of each forward of a model, and tokens in each row."""
    read: list[tuple[int, int]] = []

    def note(_: object, __: object, inputs: dict[str, torch.Tensor]) -> None:
        rows, tokens = inputs["input_ids"].shape
        read.append((rows, tokens))

    hook = model.model.get_decoder().register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield read
    finally:
        hook.remove()
