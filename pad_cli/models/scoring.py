"""Reading (prompt, answer) token sequences with a language model: states, log-probabilities, and the one batcher.

    log pi(answer) = sum_t log softmax(head(z_t))[a_t],     z_t = h_t + shift(h_t)

with gradients for what the model reads through (LoRA) and for what shifts its states; the unembedding E is frozen.
Logits live for a piece of the batch only, also in the backward pass: memory does not grow with the vocabulary.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import TypeVar

import torch
from accelerate.utils.memory import clear_device_cache
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from pad_cli.equation import LogitHead, answer_sums
from pad_cli.errors import ResourceError
from pad_cli.models.adapter import Adapter
from pad_cli.models.forward import is_out_of_memory
from pad_cli.models.language_model import LanguageModel
from pad_cli.system.progress import Bar, bar, note

_PIECE_LOGITS = 2**25  # logits held at once
_BATCH_TOKENS = 8192  # tokens of one forward pass, padding included
_CPU_BATCH_TOKENS = 1024  # no slower a token, and progress is seen before a slow machine has read thousands of them

TokenSequence = tuple[tuple[int, ...], tuple[int, ...]]
"""(prompt tokens, answer tokens)."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def corpus_of(sequences: Sequence[TokenSequence]) -> torch.Tensor:
    """(U,) sorted: every token that an answer uses."""
    return torch.tensor(sorted({token for _, answer in sequences for token in answer}))


def in_batches(
    sequences: Sequence[TokenSequence],
    read: Callable[[Sequence[TokenSequence], list[int]], Result],
    device: torch.device,
    *,
    title: str | None = None,
    advance: Callable[[int], None] | None = None,
    shared: bool = False,
) -> Iterator[tuple[list[int], Result]]:
    """Read sequences in batches, those of one prompt together; where memory is short, in smaller batches.

    The longest come first so that a batch too large for the memory shows at once. `read` takes some sequences and their
    numbers; those numbers and its result are yielded. `title` is of a progress bar; `advance` is called with the number
    of sequences just read. `shared` says that `read` reads a prompt once for all its answers.
    """
    order = by_prompt(sequences)
    backoff = BatchSizeBackoff("answers to read")
    most = min(_BATCH_TOKENS, _CPU_BATCH_TOKENS) if device.type == "cpu" else _BATCH_TOKENS
    with bar(title, total=len(sequences)) if title else nullcontext(Bar()) as progress:
        while order:
            last = order[-_fitting(sequences, order, most, shared) :]
            del order[-len(last) :]
            for numbers, result in backoff.batches(
                last, len(last), lambda batch: read([sequences[number] for number in batch], list(batch))
            ):
                yield list(numbers), result
                progress.advance(len(numbers))
                if advance is not None:
                    advance(len(numbers))


def by_prompt(sequences: Sequence[TokenSequence]) -> list[int]:
    """The numbers of sequences, the answers to one prompt together, and prompts by their longest sequence."""
    longest: dict[tuple[int, ...], int] = {}
    for prompt, answer in sequences:
        longest[prompt] = max(longest.get(prompt, 0), len(prompt) + len(answer))
    return sorted(
        range(len(sequences)), key=lambda n: (longest[sequences[n][0]], sequences[n][0], len(sequences[n][1]))
    )


def _fitting(sequences: Sequence[TokenSequence], order: Sequence[int], most: int, shared: bool) -> int:
    """How many of the last sequences to read together: at most so many tokens, with padding; at least one."""
    prompts: set[tuple[int, ...]] = set()
    longest_prompt = longest_answer = 0
    for count, number in enumerate(reversed(order)):
        prompt, answer = sequences[number]
        prompts.add(prompt)
        longest_prompt, longest_answer = max(longest_prompt, len(prompt)), max(longest_answer, len(answer))
        read = len(prompts) if shared else count + 1
        if count and read * longest_prompt + (count + 1) * longest_answer > most:
            return count
    return len(order)


def answer_states(
    model: LanguageModel, batch: Sequence[TokenSequence], adapter: Adapter | None = None, *, shared: bool = False
) -> torch.Tensor:
    """Read a batch of sequences once, through whatever LoRA weights the model has in training.

    With an `adapter`, a finished one, the batch is read through it. `shared` lets a prompt be read once for all its
    answers, where the model has a plain KV cache; the states are the same up to rounding.

    Returns:
        (T, H): the states from which the answers' T tokens are predicted, answer after answer.
    """
    prompts = list(dict.fromkeys(prompt for prompt, _ in batch))
    with nullcontext() if adapter is None else adapter.on_rows_from(0):
        if shared and len(prompts) < len(batch) and model.forward_mode.can_roll_back:
            return _states_after(model, prompts, batch)
        tokens, mask = padded([(*prompt, *answer[:-1]) for prompt, answer in batch], model.tokenizer.pad_token_id)
        states = model.hidden_states(tokens, mask)
    rows = zip(states, batch, strict=True)
    return torch.cat([row[len(prompt) - 1 : len(prompt) - 1 + len(answer)] for row, (prompt, answer) in rows])


def _states_after(
    model: LanguageModel, prompts: Sequence[tuple[int, ...]], batch: Sequence[TokenSequence]
) -> torch.Tensor:
    """The states of `answer_states`, with every prompt read once for all its answers."""
    pad, place = model.tokenizer.pad_token_id, {prompt: number for number, prompt in enumerate(prompts)}
    owners = torch.tensor([place[prompt] for prompt, _ in batch])
    cache = model.new_cache()
    tokens, mask = padded(prompts, pad, left=True)
    first = model.hidden_states(tokens, mask, cache)[:, -1][owners]  # what the answers' first tokens are predicted from
    tokens, answered = padded([answer[:-1] for _, answer in batch], pad)
    if not tokens.shape[1]:
        return first
    cache.reorder_cache(owners)
    states = model.hidden_states(tokens, torch.cat([mask[owners], answered], dim=1), cache)
    rows = zip(first, states, batch, strict=True)
    return torch.cat([torch.cat([one[None], row[: len(answer) - 1]]) for one, row, (_, answer) in rows])


def padded(rows: Sequence[Sequence[int]], pad: int, *, left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of any length as (B, T) tokens and their (B, T) mask; causal attention never looks to the right."""
    length = max(map(len, rows))
    tokens, mask = [], []
    for row in rows:
        gap = length - len(row)
        before, after = (gap, 0) if left else (0, gap)
        tokens.append([pad] * before + list(row) + [pad] * after)
        mask.append([0] * before + [1] * len(row) + [0] * after)
    return torch.tensor(tokens, dtype=torch.long), torch.tensor(mask, dtype=torch.long)


def targets_and_owners(batch: Sequence[TokenSequence], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The answers' T tokens, answer after answer, and which of the B answers each belongs to: (T,) and (T,)."""
    targets = torch.tensor([token for _, answer in batch for token in answer], device=device)
    owners = torch.tensor([row for row, (_, answer) in enumerate(batch) for _ in answer], device=device)
    return targets, owners


def answer_log_probs(
    model: LanguageModel,
    sequences: Sequence[TokenSequence],
    head: nn.Module | None = None,
    weights: torch.Tensor | None = None,
    *,
    shared: bool = False,
) -> torch.Tensor:
    """Log-probabilities of B whole answers, read as the model reads now: (B,) nats, float32.

    A `head`, on the model's device, shifts the states under each answer's preference `weights` (B, K). `shared`: see
    `answer_states`.
    """
    states = answer_states(model, sequences, shared=shared)
    targets, owners = targets_and_owners(sequences, states.device)
    if head is not None and weights is not None:
        states = states + head(states, weights.to(states.device)[owners]).to(states.dtype)
    return answer_sums(token_log_probs(states, targets, model.head), owners, len(sequences))


@torch.no_grad()
def all_log_probs(
    model: LanguageModel,
    sequences: Sequence[TokenSequence],
    head: nn.Module | None = None,
    weights: torch.Tensor | None = None,
    *,
    title: str | None = None,
    shared: bool = False,
) -> torch.Tensor:
    """As `answer_log_probs` for any number S of sequences, in batches of similar length: (S,) on the CPU."""

    def read(batch: Sequence[TokenSequence], numbers: list[int]) -> torch.Tensor:
        of_batch = None if weights is None else weights[numbers]
        return answer_log_probs(model, batch, head, of_batch, shared=shared).cpu()

    result = torch.zeros(len(sequences))
    for numbers, log_probs in in_batches(sequences, read, model.device, title=title, shared=shared):
        result[numbers] = log_probs
    return result


def token_log_probs(states: torch.Tensor, targets: torch.Tensor, head: LogitHead) -> torch.Tensor:
    """log softmax(head(state))[target] of (T, H) states and (T,) targets: (T,) float32; `head` gets no gradients."""

    def log_probs(states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return -cross_entropy(head(states.to(head.weight.dtype)).float(), targets, reduction="none")

    size = max(1, _PIECE_LOGITS // len(head.weight))
    pieces = zip(states.split(size), targets.split(size), strict=True)
    if not states.requires_grad:
        return torch.cat([log_probs(*piece) for piece in pieces])
    # for the backward pass, a piece's logits are computed again
    return torch.cat([checkpoint(log_probs, *each, use_reentrant=False, preserve_rng_state=False) for each in pieces])


def free_memory() -> None:
    """Give back what is unreferenced; to be called after, not in, the `except` that caught the error."""
    gc.collect()
    clear_device_cache()


class BatchSizeBackoff:
    """Works on batches of `what`, and halves their size, from then on, whenever one is too large for the memory."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._limit: int | None = None

    def batches(
        self, items: Sequence[Item], size: int, work: Callable[[Sequence[Item]], Result]
    ) -> Iterator[tuple[Sequence[Item], Result]]:
        """Each batch of at most `size` items and what `work` makes of it, in order.

        Raises:
            ResourceError: memory is too small for a single item.
        """
        start = 0
        while start < len(items):
            batch = items[start : start + min(size, self._limit or size)]
            try:
                result = work(batch)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(batch) == 1:
                    raise ResourceError(
                        f"Memory is too small for a single one of {self._what}.",
                        "Free some, use a smaller model, or let it read and write fewer tokens.",
                    ) from error
            else:
                yield batch, result
                start += len(batch)
                continue
            # out here, where the error no longer holds on to what the attempt had computed
            self._limit = len(batch) // 2
            free_memory()
            note(f"Memory is too small for {len(batch)} {self._what} at once; going on with {self._limit}.")
