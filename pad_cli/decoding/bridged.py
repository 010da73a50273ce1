"""Guidance by a reward model whose vocabulary is not the policy's: rewards of candidate strings.

    r(candidate) = R(answer + candidate) - R(answer)        R(text): sum of the rewards of the backbone's own tokens

So rewards add up to the reward of the text, however each model cuts it into tokens, and with equal vocabularies they
are the rewards of the tokens. Candidates of different length compete, so every normaliser counts here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from pad_cli.decoding.session import RollbackSession, can_roll_back
from pad_cli.decoding.strategies import DecodingStrategy, Guidance
from pad_cli.equation import candidate_rewards, normaliser_change
from pad_cli.models.language_model import LanguageModel, room
from pad_cli.models.vocabulary_bridge import VocabularyBridge

_COPIES = 16  # rows of the cache that are copied at once, where these can advance by different numbers of tokens
_STATES = 32  # states whose logits are taken at once, over the whole vocabulary


@dataclass
class _Row:
    """One answer as the backbone reads it."""

    states: list[torch.Tensor]  # n + 1 of (H,), before each of n tokens and after the last
    room: int | None  # the most tokens that the backbone can read here; None where nothing limits them
    written: list[int] = field(default_factory=list)  # tokens in the policy's vocabulary
    tokens: list[int] = field(default_factory=list)  # n in the backbone's
    rewards: list[float] = field(default_factory=list)  # of those n, nats
    changes: dict[int, _Change] = field(default_factory=dict)  # what each candidate of this step would do to it


@dataclass
class _Change:
    """What a candidate does to row number `row`: the first `common` tokens stay, and `new` follow with `rewards`."""

    row: int
    common: int
    new: list[int]
    rewards: list[float] = field(default_factory=list)


class BridgedStrategy(DecodingStrategy):
    """Policy and backbone read the same text in tokens of their own."""

    guidance: Guidance

    def __init__(self, policy: LanguageModel, prompts: Sequence[list[int]], guidance: Guidance) -> None:
        super().__init__(policy, prompts, guidance)
        backbone = guidance.model.backbone
        self._bridge = VocabularyBridge(policy, backbone)
        self._copies = _COPIES if can_roll_back(backbone, rows=2) else 1
        self._reward = RollbackSession(backbone, [prompt[:-1] for prompt in guidance.prompts])
        states = self._reward.read([prompt[-1:] for prompt in guidance.prompts])
        self._rows = [
            _Row([state[-1]], room(backbone.context_length, len(prompt)))
            for state, prompt in zip(states, guidance.prompts, strict=True)
        ]

    def rewards(self, candidates: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
        listed = candidates.tolist()
        for number, (row, line) in enumerate(zip(self._rows, listed, strict=True)):
            row.changes = {token: self._change(number, token) for token in line}
        self._reward_new([change for row in self._rows for change in row.changes.values() if change.new])
        gains = [
            [self._gain(row.changes[token]) for token in line] for row, line in zip(self._rows, listed, strict=True)
        ]
        rewards = torch.tensor(gains, device=log_probs.device)
        return rewards - log_probs if self.guidance.model.reference == "policy" else rewards

    def full(self, tokens: torch.Tensor) -> list[bool]:
        return [
            row.room is not None and row.changes[token].common + len(row.changes[token].new) >= row.room
            for row, token in zip(self._rows, tokens.tolist(), strict=True)
        ]

    def push(self, tokens: torch.Tensor) -> None:
        super().push(tokens)
        changes = [row.changes[token] for row, token in zip(self._rows, tokens.tolist(), strict=True)]
        self._reward.rollback(
            [len(row.tokens) - change.common for row, change in zip(self._rows, changes, strict=True)]
        )
        blocks = [change.new for change in changes]
        states = self._reward.read(blocks) if any(blocks) else torch.empty(len(blocks), 0)
        for index, (row, change, token) in enumerate(zip(self._rows, changes, tokens.tolist(), strict=True)):
            row.written.append(token)
            row.tokens[change.common :] = change.new
            row.rewards[change.common :] = change.rewards
            row.states[change.common + 1 :] = states[index, states.shape[1] - len(change.new) :]

    def keep(self, rows: torch.Tensor) -> None:
        super().keep(rows)
        self._reward.keep(rows.tolist())
        self._rows = [self._rows[row] for row in rows.tolist()]

    def _change(self, row: int, token: int) -> _Change:
        answer = self._rows[row]
        before, after, common = answer.tokens, self._bridge.tokens([*answer.written, token]), 0
        while common < min(len(before), len(after)) and before[common] == after[common]:
            common += 1
        return _Change(row, common, after[common : answer.room])  # what cannot be read earns nothing; see `full`

    def _gain(self, change: _Change) -> float:
        return sum(change.rewards) - sum(self._rows[change.row].rewards[change.common :])

    def _reward_new(self, changes: Sequence[_Change]) -> None:
        """Reward new tokens: the first of each change from a state that is known, the others from copies' states."""
        if not changes:
            return
        places = {place: number for number, place in enumerate(dict.fromkeys((c.row, c.common) for c in changes))}
        states, rows = [self._rows[row].states[common] for row, common in places], [row for row, _ in places]
        before = [places[change.row, change.common] for change in changes]
        tokens = [change.new[0] for change in changes]
        rewarded = list(changes)
        longer = [change for change in changes if len(change.new) > 1]
        for start in range(0, len(longer), self._copies):
            group = longer[start : start + self._copies]
            copies = self._reward.fork([change.row for change in group])
            copies.rollback([len(self._rows[change.row].tokens) - change.common for change in group])
            read = copies.read([change.new[:-1] for change in group])
            for change, padded in zip(group, read, strict=True):
                own = padded[1 - len(change.new) :]  # (N - 1, H) states before N new tokens, the first left out
                before += range(len(states), len(states) + len(own))
                states += own
                rows += [change.row] * len(own)
                tokens += change.new[1:]
                rewarded += [change] * len(own)
        rewards = self._token_rewards(torch.stack(states), rows, before, tokens)
        for change, reward in zip(rewarded, rewards, strict=True):
            change.rewards.append(reward)

    def _token_rewards(
        self, states: torch.Tensor, rows: Sequence[int], before: Sequence[int], tokens: Sequence[int]
    ) -> list[float]:
        """Exact rewards of tokens: (N, H) states, the rows that they belong to, and which of them is before a token."""
        model, number = self.guidance.model, torch.tensor(before, device=states.device)
        shift = model.shift(states, self.guidance.preference_weights[list(rows)])
        reference = None if model.reference == "state" else torch.zeros((), device=states.device)
        chosen = torch.tensor(tokens, device=states.device)[:, None]
        rewards = candidate_rewards(model.backbone.head, states[number], shift[number], chosen, reference)[:, 0]
        exact: list[float] = (rewards - self._constants(states, shift)[number]).tolist()
        return exact

    def _constants(self, states: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """The normalisers' part of every reward after (N, H) states: (N,) nats."""
        model, parts = self.guidance.model, []
        for plain, its_shift in zip(states.split(_STATES), shift.split(_STATES), strict=True):
            shifted = plain + its_shift.to(plain.dtype)
            read = [shifted, plain] if model.reference == "state" else [shifted]
            # one product for both: reading the unembedding is what takes the time
            personalised, *others = model.backbone.head(torch.cat(read)).split(len(plain))
            parts.append(normaliser_change(personalised, *others or [None]))
        return torch.cat(parts)
