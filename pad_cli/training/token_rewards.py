"""Differentiable token rewards r(p, s, a) over cached hidden states.

The normaliser of r runs over the whole vocabulary when that is small (exact). When it is large it runs over the
reference's likeliest tokens among those the corpus uses, plus the realised token; this keeps the order of pairs but not
absolute values (design notes: signs agree on 149 of 150 pairs, sums differ by about 2 nats).
"""

from __future__ import annotations

import torch

from pad_cli.models.heads import PreferenceHeads
from pad_cli.models.language_model import LogitHead
from pad_cli.progress import bar
from pad_cli.training.hidden_cache import HiddenCache

_CHUNK = 4096  # tokens in one pass over the vocabulary
_CHUNK_LOGITS = 2**20  # logits in one piece of a training step; larger ones make malloc return memory at every step


class TokenRewards:
    """Token rewards of a cache's answers under heads that are being trained.

    Args:
        cache: the hidden states.
        head: the backbone's unembedding, float32, on the CPU.
        normaliser_tokens: how many of the reference's likeliest tokens stand for the vocabulary; None for all (exact).
    """

    def __init__(self, cache: HiddenCache, head: LogitHead, normaliser_tokens: int | None) -> None:
        self.cache = cache
        self._head = head
        self.exact = normaliser_tokens is None
        if normaliser_tokens is None:
            self._reference = self._exact_reference()  # (N,) log-probability of the realised token
        else:
            self._candidates, self._raw = self._likeliest(normaliser_tokens)  # (N, 1 + C), realised token first

    def rewards(self, heads: PreferenceHeads, positions: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """r of the realised tokens.

        Args:
            heads: the preference heads.
            positions: (T,) positions into the cache.
            weights: (T, K) weights of the preference each token is judged under.

        Returns:
            (T,) nats.
        """
        if self.exact:
            size = max(1, _CHUNK_LOGITS // len(self._head.weight))
            parts = zip(positions.split(size), weights.split(size), strict=True)
            return torch.cat([self._exact(heads, *part) for part in parts])
        reference, personalised, _ = self.logits(heads, positions, weights)
        return personalised.log_softmax(-1)[:, 0] - reference.log_softmax(-1)[:, 0]

    def _exact(self, heads: PreferenceHeads, positions: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        hidden = self.cache.hidden[positions].float()
        logits = self._head(hidden + heads(hidden, weights))
        realised = -torch.nn.functional.cross_entropy(logits, self.cache.targets[positions], reduction="none")
        return realised - self._reference[positions]

    def logits(
        self, heads: PreferenceHeads, positions: torch.Tensor, weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Reference and personalised logits over the normaliser's tokens, (T, V) or (T, 1 + C), and where the
        realised token stands in them, (T,)."""
        hidden = self.cache.hidden[positions].float()
        if self.exact:
            shifted = hidden + heads(hidden, weights)
            return self._head(hidden), self._head(shifted), self.cache.targets[positions]
        candidates, raw = self._candidates[positions], self._raw[positions]
        used, where = candidates.unique(return_inverse=True)  # far fewer than T * C, so project each only once
        features = self._head.weight[used] @ heads.up_rows.T  # (U, K r)
        change = torch.einsum("tcf,tf->tc", features[where], heads.mixed(hidden, weights))
        finished = self._head.finish(raw), self._head.finish(raw + change)
        masked = [logits.masked_fill(raw == -torch.inf, -torch.inf) for logits in finished]
        return masked[0], masked[1], torch.zeros(len(positions), dtype=torch.long)

    @torch.inference_mode()
    def _exact_reference(self) -> torch.Tensor:
        parts = []
        for start in range(0, len(self.cache.targets), _CHUNK):
            logits = self._head(self.cache.hidden[start : start + _CHUNK].float())
            targets = self.cache.targets[start : start + _CHUNK]
            parts.append(-torch.nn.functional.cross_entropy(logits, targets, reduction="none"))
        return torch.cat(parts)

    @torch.inference_mode()
    def _likeliest(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The realised token and the reference's likeliest corpus tokens: ids and raw logits, (N, 1 + C) each.

        Where the realised token is among the likeliest its second entry gets a logit of minus infinity.
        """
        corpus = self.cache.targets.unique()
        head = self._head.rows(corpus)
        candidates, raws = [], []
        with bar("Reference tokens", total=len(self.cache.targets)) as progress:
            for start in range(0, len(self.cache.targets), _CHUNK):
                raw = head.raw(self.cache.hidden[start : start + _CHUNK].float())
                realised = torch.searchsorted(corpus, self.cache.targets[start : start + _CHUNK])[:, None]
                top, places = raw.topk(min(count, raw.shape[1]), dim=-1)
                top = top.masked_fill(places == realised, -torch.inf)
                candidates.append(corpus[torch.cat([realised, places], dim=1)])
                raws.append(torch.cat([raw.gather(1, realised), top], dim=1))
                progress.advance(len(raw))
        return torch.cat(candidates), torch.cat(raws)
