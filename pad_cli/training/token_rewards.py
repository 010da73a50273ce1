"""Differentiable token rewards r(p, s, a) over cached hidden states, and their calibration.

The normaliser of r runs over the whole vocabulary when that is small (exact). When it is large it runs over the
reference's likeliest tokens among those the corpus uses, plus the realised token; this keeps the order of pairs but not
absolute values (measured on 150 pairs: signs agree on 149, sums differ by about 2 nats).
"""

from __future__ import annotations

import torch
from torch import nn

from pad_cli.equation import LogitHead, calibration_factor, log_prob, spread, strength, token_reward
from pad_cli.models.heads import PreferenceHeads
from pad_cli.system.progress import bar
from pad_cli.training.hidden_cache import HiddenCache

_SCALE_STATES = 1024
_CHUNK_STATES = 128
_CHUNK_LOGITS = 2**20  # logits in one piece of a training step; larger ones make malloc return memory at every step


class TokenRewards:
    """Token rewards of a cache's answers under heads that are being trained.

    `head` is the backbone's unembedding in float32 on the CPU; the cache was read for the whole vocabulary if `exact`,
    and through an adapter if `adapted`.
    """

    def __init__(self, cache: HiddenCache, head: LogitHead, exact: bool, adapted: bool) -> None:
        self.cache = cache
        self.exact = exact
        self._head = head
        self._adapted = adapted

    def rewards(
        self, heads: PreferenceHeads, positions: torch.Tensor, weights: torch.Tensor, dropout: float = 0.0
    ) -> torch.Tensor:
        """r of the realised tokens, (T,) nats.

        Args:
            heads: the K preference heads.
            positions: (T,) positions into the cache.
            weights: (T, K) weights of the preference each token is judged under.
            dropout: share of each state that the heads do not see.
        """
        if self.exact:
            size = max(1, _CHUNK_LOGITS // len(self._head.weight))
            parts = zip(positions.split(size), weights.split(size), strict=True)
            return torch.cat([self._exact(heads, *part, dropout) for part in parts])
        reference, personalised, realised = self.logits(heads, positions, weights, dropout)
        return token_reward(personalised, reference, realised)

    def logits(
        self, heads: PreferenceHeads, positions: torch.Tensor, weights: torch.Tensor, dropout: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Reference and personalised logits over the normaliser's tokens, (T, V) or (T, 1 + C), and where the
        realised token stands in them, (T,)."""
        hidden, seen = self._hidden(positions, dropout)
        if self.exact:
            plain = self.cache.gather("plain", positions).float() if self._adapted else hidden
            return self._head(plain), self._head(hidden + heads(seen, weights)), self.cache.targets[positions]
        candidates, raw = self.cache.gather("candidates", positions).long(), self.cache.gather("raw", positions)
        plain = self._head.finish(raw)
        moved = self.cache.gather("adapted", positions) if self._adapted else raw
        personalised = self._head.finish(moved + self._change(heads, seen, weights, candidates))
        twice = raw == -torch.inf  # the realised token's second place
        masked = plain.masked_fill(twice, -torch.inf), personalised.masked_fill(twice, -torch.inf)
        return *masked, torch.zeros(len(positions), dtype=torch.long)

    def logits_of(
        self,
        heads: PreferenceHeads,
        positions: torch.Tensor,
        weights: torch.Tensor,
        candidates: torch.Tensor,
        raw: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Reference and personalised logits of any (T, C) candidates, for a backbone without an adapter.

        `raw` are their (T, C) logits before scale and cap; minus infinity in a column that stands for no token.
        """
        hidden, _ = self._hidden(positions, 0.0)
        moved = raw + self._change(heads, hidden, weights, candidates)
        none = raw == -torch.inf
        reference, personalised = (self._head.finish(each).masked_fill(none, -torch.inf) for each in (raw, moved))
        return reference, personalised

    def _hidden(self, positions: torch.Tensor, dropout: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The states, and what the heads see of them."""
        hidden = self.cache.gather("hidden", positions).float()
        return hidden, nn.functional.dropout(hidden, dropout) if dropout else hidden

    def _exact(
        self, heads: PreferenceHeads, positions: torch.Tensor, weights: torch.Tensor, dropout: float
    ) -> torch.Tensor:
        hidden, seen = self._hidden(positions, dropout)
        realised = log_prob(self._head(hidden + heads(seen, weights)), self.cache.targets[positions])
        return realised - self.cache.gather("reference", positions)

    def _change(
        self, heads: PreferenceHeads, hidden: torch.Tensor, weights: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        """E[a] . delta(h), the heads' shift, for every candidate: (T, 1 + C)."""
        used, where = _distinct(candidates, len(self._head.weight))  # far fewer than T * C: project each only once
        features = (self._head.weight[used] @ heads.up_rows.T).view(len(used), len(heads.names), -1)  # (U, K, r)
        mixed = heads.mixed(hidden, weights)  # (T, K, r)
        change = torch.zeros(candidates.shape)
        for number in range(len(heads.names)):
            rows = weights[:, number].nonzero()[:, 0]  # most preferences ask for few principles
            products = features[:, number].contiguous()[where[rows]] * mixed[rows, number, None]
            change = change.index_add(0, rows, products.sum(-1))
        return change


def _distinct(tokens: torch.Tensor, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The distinct tokens (U,), sorted, and where each token stands among them."""
    seen = torch.zeros(vocabulary, dtype=torch.bool)
    seen[tokens.flatten()] = True
    used = seen.nonzero()[:, 0]
    places = torch.empty(vocabulary, dtype=torch.long)
    places[used] = torch.arange(len(used))
    return used, places[tokens]


# Calibration: what guidance weight 1 means. The loss temperature and the number of steps decide how large rewards grow,
# and what steers is how much they differ between the tokens that compete. So a principle's scale is the root mean
# square, over states, of the standard deviation of its rewards among the reference's likeliest tokens.


@torch.inference_mode()
def reward_scales(
    heads: PreferenceHeads, rewards: TokenRewards, seed: int = 0, *, title: str | None = None
) -> torch.Tensor:
    """How strongly each principle steers on its own, before calibration.

    States are drawn from the cache of `rewards`. Returns (K,) nats.
    """
    drawn = torch.randperm(len(rewards.cache), generator=torch.Generator().manual_seed(seed))[:_SCALE_STATES]
    alone = torch.eye(len(heads.names))
    scales = []
    with bar(title or "", total=len(alone) * len(drawn) if title else 0) as progress:
        for weights in alone:
            spreads = []
            for part in drawn.split(_CHUNK_STATES):
                reference, personalised, _ = rewards.logits(heads, part, weights.expand(len(part), -1))
                spreads.append(spread(personalised - reference, reference))
                progress.advance(len(part))
            scales.append(strength(torch.cat(spreads)))
    return torch.stack(scales)


@torch.no_grad()
def normalise_heads(heads: PreferenceHeads, scales: torch.Tensor) -> None:
    """Bring each head of some (K,) scales to `equation.STRENGTH`; one that rewards nothing stays.

    The factor is exact: among candidates rewards are linear in B_k.
    """
    heads.up.mul_(calibration_factor(scales)[:, None, None].to(heads.up))


def global_scale(scales: torch.Tensor) -> float:
    """The factor that brings the root mean square of (K,) scales to `equation.STRENGTH`; 1 if none rewards."""
    return float(calibration_factor(strength(scales.square())))
