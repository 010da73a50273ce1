"""A tiny subject, and items to answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pad_cli.decoding.engine import PadEngine
from pad_cli.evaluation.contract import EvalContext
from pad_cli.models.adapter import Adapter
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.reward_model import RewardModel
from pad_cli.recipe import DecodingSettings
from pad_cli.records import BenchmarkItem, as_messages
from tests.tiny import make_language_model

QUESTIONS = ("Hi", "How do I bake bread?", "Tell me about the sea.", "Why?")
PREFERENCES = ("humorous", "not formal", "concise=2", "humorous, formal=0.5")
HOW = DecodingSettings(max_new_tokens=10, batch_size=3)


def make_subject(policy: LanguageModel, reward_model: RewardModel) -> EvalContext:
    return EvalContext("tiny", PadEngine(policy, reward_model))


def make_items(preferences: tuple[str, ...] = PREFERENCES) -> list[BenchmarkItem]:
    return [
        BenchmarkItem(f"{preference}/{number}", "single", preference, as_messages(question), (preference,))
        for number, (question, preference) in enumerate(zip(QUESTIONS, preferences, strict=True))
    ]


def make_stopping_policy(tokenizer: Any) -> LanguageModel:
    """A tiny policy for which one token in ten ends an answer: some answers stop, some reach the limit."""
    policy = make_language_model(tokenizer, seed=3)
    policy.model.generation_config.eos_token_id = list(range(1, policy.vocabulary_size, 10))
    return policy


@contextmanager
def attached(policy: LanguageModel, directory: Path) -> Iterator[Adapter]:
    """An adapter of the policy's, inside the block."""
    adapter = Adapter.load(directory, policy.model)
    try:
        yield adapter
    finally:
        adapter.remove_hooks()
