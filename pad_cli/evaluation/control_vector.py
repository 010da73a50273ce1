"""Method `control-vector`: a direction is added to the policy's states while it answers.

    h_l <- h_l + guidance_weight * sum_k w_k v_k,     v_k = mean over pairs of (h_l(chosen) - h_l(rejected))

h_l is the residual stream after decoder layer l, and h_l(y) its mean over the states that an answer's tokens are
predicted from (contrastive activation addition: Rimsky et al. 2024, arXiv 2312.06681; Turner et al. 2023, arXiv
2308.10248). The pairs of v_k ask for principle k alone; where the weight is negative, they are swapped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from pydantic import Field
from safetensors import SafetensorError
from torch import nn

from pad_cli.errors import RecipeError
from pad_cli.evaluation.contract import HINT, Cost, EvalContext, Method
from pad_cli.evaluation.trained_methods import answer_alike, goal_pairs
from pad_cli.models.checkpoint_files import load_tensors, save_tensors
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.scoring import TokenSequence, in_batches, padded
from pad_cli.pairs import load_pairs
from pad_cli.preference import parse_preference
from pad_cli.recipe import DataSettings, DecodingSettings, Settings
from pad_cli.recipe.settings import read_options
from pad_cli.records import BenchmarkItem, Generation
from pad_cli.system.runs import fingerprint, home, in_turn, whole_directory
from pad_cli.training.pair_table import SequenceBook, tabulate

_FILE, _VECTORS, _SECONDS = "vectors.safetensors", "vectors", "seconds"


class ControlVectorOptions(Settings):
    """Where the directions come from, and where they go."""

    data: DataSettings = Field(description="The preference pairs, as in a recipe of kind train-rm.")
    principles: list[str] | None = Field(
        None, min_length=1, description="Principles that pairs may name; by default all they name."
    )
    depth: float = Field(0.6, gt=0, le=1, description="After which of the L layers: depth * L, rounded.")
    seed: int = Field(0, ge=0, description="Of the data.")


class ControlVector(Method):
    """The policy with a direction for each principle added to its states (mean difference of chosen and rejected).

    Options: see `ControlVectorOptions`. Free text has no effect.
    """

    weighted = True
    name: ClassVar[str] = "control-vector"

    def __init__(self, **options: Any) -> None:
        self.options = read_options(ControlVectorOptions, options, f"methods: options of '{self.name}'", HINT)
        pairs = load_pairs(self.options.data, self.options.seed, self.options.principles).train
        self._pairs = [pair for pair in pairs if len(pair.preference) == 1 and not pair.texts]
        self._names = sorted({name for pair in self._pairs for name in pair.preference})
        self._vectors: dict[str, torch.Tensor] = {}  # of each policy, (K, H)

    def key(self, context: EvalContext) -> Any:
        return [self.name, self._made_from(context.policy), sorted(context.reward_model.principles)]

    def prepare(self, context: EvalContext) -> Cost:
        """Read the pairs' answers, once for a policy.

        Raises:
            RecipeError: no pair names one principle, or the policy's layers stand in no list.
            StorageError: see `pad_cli.errors`.
        """
        policy = context.policy
        if not self._pairs:
            raise RecipeError(f"methods: no pair that '{self.name}' learns from names one principle alone.", HINT)
        target = home() / "control-vectors" / fingerprint(self._made_from(policy))
        with in_turn(target):
            try:
                tensors, _ = load_tensors(target / _FILE)
            except (FileNotFoundError, SafetensorError):
                started = time.monotonic()
                vectors = self._directions(policy)
                tensors = {_VECTORS: vectors, _SECONDS: torch.tensor(time.monotonic() - started)}
                with whole_directory(target) as scratch:
                    save_tensors(tensors, scratch / _FILE)
        vectors = self._vectors[policy.fingerprint] = tensors[_VECTORS]
        return Cost(float(tensors[_SECONDS]), len(vectors), vectors.numel())

    def answer(
        self, context: EvalContext, items: Sequence[BenchmarkItem], settings: DecodingSettings, guidance_weight: float
    ) -> list[Generation]:
        """Answers in order; items of one preference are answered together."""
        names = sorted({*self._names, *context.reward_model.principles})
        asked = [parse_preference(item.preference, names, accepts_text=True).weights for item in items]

        def steered(weights: Mapping[str, float], alike: list[BenchmarkItem]) -> list[Generation]:
            prompts, streams = [item.prompt for item in alike], [item.id for item in alike]
            with _added(context.policy, self._layer(context.policy), guidance_weight * self._shift(context, weights)):
                return context.engine.generate(prompts, None, settings, streams=streams)

        return answer_alike(items, asked, steered)

    def _made_from(self, policy: LanguageModel) -> list[Any]:
        limits = self.options.data.max_prompt_tokens, self.options.data.max_answer_tokens
        pairs = fingerprint([pair.content() for pair in self._pairs])
        return [policy.fingerprint, str(policy.dtype), pairs, limits, self.options.depth]

    def _layer(self, policy: LanguageModel) -> nn.Module:
        """The decoder layer after which the direction is added."""
        decoder, count = policy.model.get_decoder(), policy.model.config.get_text_config(decoder=True).num_hidden_layers
        lists = (each for each in decoder.modules() if isinstance(each, nn.ModuleList) and len(each) == count)
        if (layers := next(lists, None)) is None:
            raise RecipeError(f"methods: '{self.name}' finds no list of {count} layers in '{policy.name}'.", HINT)
        layer: nn.Module = layers[max(0, round(self.options.depth * count) - 1)]
        return layer

    def _directions(self, policy: LanguageModel) -> torch.Tensor:
        """(K, H) in float32."""
        book, limits = SequenceBook(), (self.options.data.max_prompt_tokens, self.options.data.max_answer_tokens)
        tables = [tabulate(goal_pairs(self._pairs, {name: 1.0}), book) for name in self._names]
        sequences, _ = book.tokenised(policy.tokenizer, *limits)
        means = _mean_states(policy, self._layer(policy), sequences)
        return torch.stack([(means[table.chosen] - means[table.rejected]).mean(0) for table in tables])

    def _shift(self, context: EvalContext, weights: Mapping[str, float]) -> torch.Tensor:
        """(H,); a principle that no pair names has no direction."""
        if context.policy.fingerprint not in self._vectors:
            self.prepare(context)
        of_each = torch.tensor([weights.get(name, 0.0) for name in self._names])
        return of_each @ self._vectors[context.policy.fingerprint]


@torch.inference_mode()
def _mean_states(policy: LanguageModel, layer: nn.Module, sequences: Sequence[TokenSequence]) -> torch.Tensor:
    """The mean state after a layer over each of S answers: (S, H) float32 on the CPU."""
    seen: list[torch.Tensor] = []

    def read(batch: Sequence[TokenSequence], _: list[int]) -> torch.Tensor:
        seen.clear()
        tokens, mask = padded([(*prompt, *answer[:-1]) for prompt, answer in batch], policy.tokenizer.pad_token_id)
        policy.hidden_states(tokens, mask)
        read_rows = (row for part in seen for row in part)  # one part for each row where rows are read alone
        rows = zip(read_rows, batch, strict=True)
        return torch.stack([row[len(p) - 1 : len(p) - 1 + len(a)].float().mean(0) for row, (p, a) in rows]).cpu()

    hook = layer.register_forward_hook(lambda _, __, output: seen.append(_states(output)))
    try:
        batches = in_batches(sequences, read, policy.device, title="Reading answers for control vectors")
        found = {number: row for numbers, rows in batches for number, row in zip(numbers, rows, strict=True)}
    finally:
        hook.remove()
    return torch.stack([found[number] for number in range(len(sequences))])


@contextmanager
def _added(policy: LanguageModel, layer: nn.Module, shift: torch.Tensor) -> Iterator[None]:
    """Inside, (H,) `shift` is added to what a layer of the policy returns."""

    def add(_: nn.Module, __: Any, output: Any) -> Any:
        states = _states(output)
        moved = states + shift.to(states.device, states.dtype)
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    hook = layer.register_forward_hook(add)
    try:
        yield
    finally:
        hook.remove()


def _states(output: Any) -> torch.Tensor:
    """What a decoder layer returns; older architectures return it in a tuple."""
    states: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return states
