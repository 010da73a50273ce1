"""The nouns that travel between floors (floor 1): plain, frozen, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Messages = tuple[Mapping[str, str], ...]
"""A conversation: messages with `role` and `content`, the field's standard form."""


def as_messages(prompt: str | Sequence[Mapping[str, str]]) -> Messages:
    """A plain prompt becomes one user message; a conversation stays as it is."""
    if isinstance(prompt, str):
        return ({"role": "user", "content": prompt},)
    return tuple({"role": message["role"], "content": message["content"]} for message in prompt)


@dataclass(frozen=True)
class PreferencePair:
    """Two answers to one prompt, and the preference under which the first is better.

    Attributes:
        prompt: the conversation so far.
        preference: weights of named principles, signed.
        chosen: the better answer under that preference.
        rejected: the worse answer.
    """

    prompt: Messages
    preference: Mapping[str, float]
    chosen: str
    rejected: str


@dataclass(frozen=True)
class PairSplit:
    """A named set of preference pairs; `texts` says that preferences are to be read from wordings.

    Attributes:
        name: the key under which metrics are reported, for example `held_out_topics`.
        pairs: its preference pairs.
        texts: for each principle the wordings to use in place of its name; empty when names are used.
    """

    name: str
    pairs: tuple[PreferencePair, ...]
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class PairData:
    """What a reward model is trained and measured on.

    Attributes:
        train: the training pairs.
        validation: named splits, never trained on.
        texts: for each principle the wordings that training may use (the encoder's training data).
    """

    train: tuple[PreferencePair, ...]
    validation: tuple[PairSplit, ...]
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class BenchmarkItem:
    """One thing to answer: a prompt, the preference as a user would type it, and what a scorer needs to know.

    Attributes:
        id: unique in its benchmark, stable between runs.
        group: which question the item helps to answer, for example `single` or `combination`.
        label: the preference's name in a report.
        prompt: the conversation to answer.
        preference: preference specifications as typed after `--pref`.
        facts: ground truth for scorers, for example `{"topic": "chess", "asked": ["humorous"]}`.
    """

    id: str
    group: str
    label: str
    prompt: Messages
    preference: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Generation:
    """One answer.

    Attributes:
        text: the answer, special tokens removed.
        token_ids: the generated tokens, the end-of-sequence token included when there was one.
        finish_reason: `stop` at end of sequence, `length` at the token limit.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length"]


@dataclass(frozen=True)
class Cell:
    """One row of a report: a scorer's mean over the items of one method, policy, group, preference and weight."""

    method: str
    policy: str
    group: str
    preference: str
    guidance_weight: float
    scorer: str
    n: int
    mean: float
    stderr: float
    higher_is_better: bool
