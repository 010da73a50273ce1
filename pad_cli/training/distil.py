"""Stage `distil`: the heads learn, token by token, what a principle's instruction makes of the next token.

With x a prompt, y an answer so far and i_k the instruction of principle k, the target is the model's own distribution
after i_k, x and y, and the heads have to reach it from the state after x and y, where nothing asks for the principle:

    loss = KL( pi(. | i_k, x, y)  ||  softmax(logits of h(x, y) + B_k A_k h(x, y)) )

among the likeliest tokens of both. Any answer serves as y; it need not be a good one. An answer that was chosen under a
principle is read under its instruction, and so are a few that were rejected. Where a pair asks for less of a principle
(weight below 0), the instruction is that of its opposite.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from pad_cli.equation import LogitHead, answer_sums, contrast_target, distillation_loss
from pad_cli.errors import RecipeError
from pad_cli.models.heads import PreferenceHeads
from pad_cli.models.language_model import room
from pad_cli.models.prompts import encode_prompt
from pad_cli.models.scoring import TokenSequence, corpus_of
from pad_cli.principles import NOT, instructed
from pad_cli.system.processes import ALONE, Processes
from pad_cli.system.progress import note
from pad_cli.training.hidden_cache import build_hidden_cache
from pad_cli.training.pair_table import PairTable, TrainingData
from pad_cli.training.token_rewards import TokenRewards

_LIKELIEST = 32  # tokens of each of the two distributions
_CHUNK_LOGITS = 2**24  # logits held at once
_OTHERS = 4  # rejected answers to a prompt that are read under an instruction, beside the chosen ones


@dataclass(frozen=True)
class InstructedAnswers:
    """M answers, T tokens in all, each read without and with the instruction of one principle.

    Logits are those of C tokens: the likeliest without the instruction, and the likeliest with it. A token that is both
    has minus infinity in its second column.
    """

    weights: torch.Tensor  # (M, K): 1 or -1 for the principle
    lengths: torch.Tensor  # (M,), how many of the T tokens each has, answer after answer
    positions: torch.Tensor  # (T,), places of the tokens in the cache of `rewards`
    candidates: torch.Tensor  # (T, C) token ids
    raw: torch.Tensor  # (T, C) logits without the instruction, before scale and cap
    instructed: torch.Tensor  # (T, C) logits with it
    rewards: TokenRewards

    def __len__(self) -> int:
        return len(self.weights)

    def divergence(
        self, heads: PreferenceHeads, batch: torch.Tensor, contrast: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean loss of the tokens of (B,) answers, and how much nearer to the target the heads bring each answer,
        (B,) nats."""
        lengths = self.lengths[batch]
        owners = torch.repeat_interleave(torch.arange(len(batch)), lengths)
        firsts = self.lengths.cumsum(0)[batch] - lengths.cumsum(0)  # of each answer's tokens, less those before it here
        rows = firsts[owners] + torch.arange(len(owners))
        weights, candidates = self.weights[batch][owners], self.candidates[rows].long()
        reference, personalised = self.rewards.logits_of(
            heads, self.positions[rows], weights, candidates, self.raw[rows]
        )
        target = contrast_target(reference, self.instructed[rows], contrast)
        losses = distillation_loss(personalised, target)
        nearer = distillation_loss(reference, target) - losses.detach()
        return losses.mean(), answer_sums(nearer, owners, len(batch))


def read_instructed(
    data: TrainingData, principles: Sequence[str], instructions: Mapping[str, str], rewards: TokenRewards,
    everyone: Processes = ALONE,
) -> InstructedAnswers:  # fmt: skip
    """Read the answers of the training pairs that ask for one principle under its instruction.

    Args:
        data: the training data; states are cached where its own are.
        principles: names of the K heads.
        instructions: principle to instruction, and `not NAME` to that of its opposite.
        rewards: over the cached states of the same answers.
        everyone: processes that share the reading.

    Raises:
        RecipeError: no pair asks for a single principle that has an instruction.
        DataError: the chat template refuses an instruction.
    """
    backbone = data.backbone
    found, too_long = [], 0
    for number, name in answers_to_read(data.named, instructions, data.sequences, data.seed):
        prompt = tuple(encode_prompt(backbone.tokenizer, instructed(data.conversations[number], instructions[name])))
        left = room(backbone.context_length, len(prompt))
        answer = data.sequences[number][1]
        if left is not None and left < len(answer):
            too_long += 1
            continue
        found.append((number, name, (prompt, answer)))
    if too_long:
        note(f"{too_long} answers are not read under an instruction: the backbone reads no more.")
    if not found:
        raise RecipeError(
            "stages: `distil` needs training pairs that ask for one principle with an instruction.",
            "Name ready principles (pad prefs library), or write yours into principles.yaml.",
        )
    sequences: list[TokenSequence] = [sequence for _, _, sequence in found]
    told = build_hidden_cache(sequences, replace(data.extractor, candidates=1), data.states, everyone)
    answers = torch.tensor([number for number, _, _ in found])
    positions, _ = rewards.cache.positions(answers)
    in_told, _ = told.positions(torch.arange(len(found)))
    corpus = corpus_of(data.sequences)
    rows = data.head.rows(corpus)
    size = max(1, _CHUNK_LOGITS // len(rows.weight))
    parts = [
        _likeliest(rows, rewards.cache.gather("hidden", plain).float(), told.gather("hidden", instructed).float())
        for plain, instructed in zip(positions.split(size), in_told.split(size), strict=True)
    ]
    places, raw, instructed_logits = (torch.cat(part) for part in zip(*parts, strict=True))
    return InstructedAnswers(
        _weights([name for _, name, _ in found], principles),
        rewards.cache.lengths[answers],
        positions,
        corpus[places].int(),
        raw,
        instructed_logits,
        rewards,
    )


def _likeliest(
    head: LogitHead, plain: torch.Tensor, instructed: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Columns of the head among which (T, H) states are compared, (T, C), and the logits there: raw, and instructed."""
    before, after = head.raw(plain), head(instructed)
    count = min(_LIKELIEST, before.shape[1])
    first, second = before.topk(count).indices, after.topk(count).indices
    places = torch.cat([first, second], dim=1)
    raw = before.gather(1, places)
    raw[:, count:].masked_fill_((second[:, :, None] == first[:, None]).any(-1), -torch.inf)
    return places, raw, after.gather(1, places)


def answers_to_read(
    pairs: PairTable, instructions: Mapping[str, str], sequences: Sequence[TokenSequence], seed: int
) -> list[tuple[int, str]]:
    """Which answers to read, and the names of their instructions."""
    rng = random.Random(f"{seed} distil")
    asked: dict[tuple[int, str], None] = {}
    others: dict[tuple[tuple[int, ...], str], list[int]] = {}  # prompt and name to rejected answers
    answers = zip(pairs.chosen.tolist(), pairs.rejected.tolist(), pairs.preferences, strict=True)
    for chosen, rejected, preference in answers:
        if len(preference) != 1:
            continue
        ((principle, weight),) = preference.items()
        name = principle if weight > 0 else f"{NOT}{principle}"
        if name in instructions:
            asked[chosen, name] = None
            others.setdefault((sequences[chosen][0], name), []).append(rejected)
    for (_, name), numbers in others.items():
        distinct = list(dict.fromkeys(numbers))
        for number in rng.sample(distinct, min(_OTHERS, len(distinct))):
            asked[number, name] = None
    return list(asked)


def _weights(names: Sequence[str], principles: Sequence[str]) -> torch.Tensor:
    """(M, K): 1 for a principle, -1 for `not NAME`."""
    weights = torch.zeros(len(names), len(principles))
    for row, name in enumerate(names):
        positive = name in principles
        weights[row, principles.index(name if positive else name.removeprefix(NOT))] = 1.0 if positive else -1.0
    return weights
