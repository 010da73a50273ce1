"""The trainable parts: heads that shift a hidden state, and the encoder that turns free text into their weights.

logits_p = E (h + shift)
heads    shift = sum_k w_pk B_k A_k h     the paper's W_p h with W_p = I + sum_k w_pk B_k A_k
dense    shift = W h + b - h              the form that PAD's authors released
encoder  w_p = g(text)                    training stage `encoder`

For the encoder, the backbone reads the text as an instruction ("Write in this style: ..."); its hidden state where the
answer would begin says what it expects to write, and a small network turns that state into weights of the principles.
The encoder remembers the states of the texts it was trained on: a text that is far from all of them is not guessed at.

A principle that was added later has no weights in the network's last layer. Its paraphrases are remembered as well: a
text that is nearest to one of them means that principle alone, and for all others the network gives what it gave.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pad_cli.equation import mix_heads, shift
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_prompt
from pad_cli.models.scoring import padded
from pad_cli.preference import instruction
from pad_cli.records import as_messages

_CLOSE = 0.05  # this share of the training texts is less similar to the others
_TRUSTED = 0.75  # of the similarity at that share: paraphrases, but not texts of another meaning


class PreferenceHeads(nn.Module):
    """K low-rank heads, one for each name, of rank r on hidden size H; the identity at initialisation (B = 0)."""

    def __init__(self, names: Sequence[str], hidden_size: int, rank: int, seed: int = 0) -> None:
        super().__init__()
        self.names = tuple(names)
        self.rank = rank
        generator = torch.Generator().manual_seed(seed)
        down = torch.randn(len(self.names), rank, hidden_size, generator=generator) / hidden_size**0.5
        self.down = nn.Parameter(down)  # A (K, r, H)
        self.up = nn.Parameter(torch.zeros(len(self.names), hidden_size, rank))  # B (K, H, r)

    def forward(self, hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """(N, H) hidden states and (N, K) weights w_p, one row a state, to the (N, H) shift, in the heads' dtype."""
        return shift(hidden, self.down, self.up, weights)

    def mixed(self, hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """w_pk A_k h of every head: (N, K, r)."""
        return mix_heads(hidden, self.down, weights)

    @property
    def up_rows(self) -> torch.Tensor:
        """All B_k side by side: (K r, H)."""
        return self.up.transpose(1, 2).reshape(-1, self.up.shape[1])


def dense_shift(linear: nn.Linear, hidden: torch.Tensor) -> torch.Tensor:
    """W h + b - h of (N, H) states: (N, H), in the dtype of W."""
    wide = hidden.to(linear.weight.dtype)
    shift: torch.Tensor = linear(wide) - wide
    return shift


class PreferenceEncoder(nn.Module):
    """A two-layer network from a text's state (H) to weights (K), with a memory of N training texts.

    With `texts` = 0 there is no memory, and every text is read by the network. Dropout is on input and hidden layer.
    """

    def __init__(self, hidden_size: int, width: int, principles: int, dropout: float = 0.0, texts: int = 0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(hidden_size))
        self.register_buffer("spread", torch.ones(hidden_size))
        self.register_buffer("known", torch.zeros(texts, hidden_size))
        self.register_buffer("owners", torch.zeros(texts, dtype=torch.long))
        self.register_buffer("trusted", torch.tensor(-1.0))
        self.network = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(hidden_size, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, principles),
        )

    mean: torch.Tensor
    spread: torch.Tensor
    known: torch.Tensor
    owners: torch.Tensor
    trusted: torch.Tensor

    def remember(self, states: torch.Tensor, owners: torch.Tensor) -> None:
        """Before training, take scale and memory from the training texts.

        `states` (N, H) are from `text_states`, `owners` (N,) the principles that they paraphrase, from 0; -1 for none.
        """
        self.mean = states.mean(0)
        self.spread = states.std(0, correction=0).clamp(min=1e-4)
        self.known, self.owners = nn.functional.normalize(self._scaled(states), dim=1), owners
        if len(states) > 1:
            others = (self.known @ self.known.T).fill_diagonal_(-1.0)
            self.trusted = _TRUSTED * torch.quantile(others.max(1).values, _CLOSE)

    def extended(self, states: torch.Tensor) -> PreferenceEncoder:
        """This encoder with one more principle, which only its paraphrases, (P, H) from `text_states`, lead to."""
        last = self._last
        size, principles = last.in_features, last.out_features
        encoder = PreferenceEncoder(len(self.mean), size, principles + 1, texts=len(self.known) + len(states))
        tensors = self.state_dict()
        tensors["known"] = torch.cat([self.known, nn.functional.normalize(self._scaled(states), dim=1)])
        tensors["owners"] = torch.cat([self.owners, torch.full((len(states),), principles)])
        tensors["network.4.weight"] = torch.cat([last.weight, torch.zeros(1, size)])
        tensors["network.4.bias"] = torch.cat([last.bias, torch.zeros(1)])
        encoder.load_state_dict(tensors)
        return encoder.eval().requires_grad_(False)

    def similarities(self, states: torch.Tensor) -> torch.Tensor:
        """(N, H) states of texts to (N, texts): cosines of scaled states with those of the known texts."""
        return nn.functional.normalize(self._scaled(states), dim=1) @ self.known.T

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(N, H) states of texts to (N, K) weights, however far they are."""
        weights: torch.Tensor = self.network(self._scaled(states))
        return weights

    @torch.inference_mode()
    def read(self, states: torch.Tensor) -> tuple[torch.Tensor, dict[int, int]]:
        """(N, H) states of texts to (N, K) weights; a text that is not understood gets none.

        That is one whose similarity (cosine of scaled states) to every training text is well below theirs to each
        other. Also returned, by the number of such a text: the principle of the nearest training text, or -1.
        """
        weights = self(states)
        if len(self.known) == 0:
            return weights, {}
        nearest = self.similarities(states).max(1)
        far = nearest.values < self.trusted
        owners = self.owners[nearest.indices]
        last = self._last
        added = ~(last.weight.any(1) | last.bias.bool())  # (K,)
        by_paraphrase = (owners >= 0) & added[owners]
        weights[by_paraphrase] = nn.functional.one_hot(owners[by_paraphrase], len(added)).to(weights)
        return weights.masked_fill(far[:, None], 0.0), {row: int(owners[row]) for row in far.nonzero()[:, 0].tolist()}

    @property
    def _last(self) -> nn.Linear:
        last = self.network[4]
        assert isinstance(last, nn.Linear)
        return last

    def _scaled(self, states: torch.Tensor) -> torch.Tensor:
        return (states.to(self.mean.dtype) - self.mean) / self.spread


@torch.inference_mode()
def text_states(backbone: LanguageModel, texts: Sequence[str], batch_size: int = 64) -> torch.Tensor:
    """The backbone's state after reading each text as an instruction: (N, H) in float32 on the CPU."""
    prompts = [encode_prompt(backbone.tokenizer, as_messages(instruction(text))) for text in texts]
    states, pad = [], backbone.tokenizer.pad_token_id
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        tokens, mask = padded(batch, pad, left=True)
        states.append(backbone.hidden_states(tokens, mask)[:, -1].float().cpu())
    return torch.cat(states)
