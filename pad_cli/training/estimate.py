"""What a `train-rm` recipe will cost, from its configuration and a sample of its data; nothing is trained or written.

Operations. With N the numbers in the body's linear layers, L layers, D numbers in a layer's query heads and T tokens of
context, reading one token costs (Kaplan et al. 2020, arXiv 2001.08361, section 2.1)

    forward   F = 2 N + 2 L T D                                       and 2 V H for logits over V tokens
    backward  2 F: F for the gradient of the inputs and F for the gradient of the weights

Frozen weights need no gradient, so a LoRA stage costs forward F + backward F, F more with gradient checkpointing, and
6 P for its own P numbers (Hu et al. 2021, arXiv 2106.09685). Its reference, the plain backbone, reads every distinct
answer once. The stages `heads` and `encoder` read it once too, into the cache; a token of training then costs

    exact       4 V H               logits of the personalised state, and the gradient of that state
    restricted  6 C K r + 6 U H K r / tokens of a step               C candidates a token, U distinct ones in a step

and 12 K r H for the K heads of rank r. Time is operations over rate, or bytes over bandwidth where that is longer.

Memory. Weights in the dtype that they are loaded in; 4 bits with a float32 constant for each 64 numbers (Dettmers et
al. 2023, arXiv 2305.14314), 8 bits with one for each row. A trained number takes 16 bytes: itself, its gradient,
AdamW's two moments, all in float32. Activations, of the longest texts: what the linear layers read and write is kept
for the backward pass (with checkpointing only each layer's input, and one layer's inside), beside the gradients of one
layer.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from pad_cli.models.dtype import DtypeChoice, choose_dtype
from pad_cli.models.language_model import Outline, context_length, cut_to_context, load_outline, room
from pad_cli.models.loading import chosen_device
from pad_cli.models.prompts import encode_answer, encode_prompt
from pad_cli.pairs import load_pairs
from pad_cli.recipe import (
    AdapterStage,
    EncoderStage,
    HeadsStage,
    JointStage,
    LoraStage,
    ModelSettings,
    Stage,
    TrainRecipe,
)
from pad_cli.records import PairData, PreferencePair
from pad_cli.training.machine import GPUS, Device, measure_machine

_SAMPLE = 2000  # answers that are tokenised
_CACHE_TOKENS = 8192  # of one forward pass when states are cached
_CACHE_LOGITS = 2**20  # in one piece of it
_LOGIT_TOKENS = 1024  # whose logits a LoRA stage holds at once
_WORDING_TOKENS = 24
_TRAINED_BYTES = 16
_RESERVED = 0.9  # share of a device's memory that can be used


@dataclass(frozen=True)
class Volume:
    """How much data there is.

    Attributes:
        pairs: training pairs.
        answers: distinct (prompt, answer) of training and validation, each of which is read once.
        prompt_tokens: mean of a prompt, after cutting.
        answer_tokens: mean of an answer, after cutting.
        longest: of the sampled prompts with their answers, in tokens.
        corpus: distinct tokens of the answers, extended from the sample by Heaps' law (exponent 0.5).
        sampled: answers that were tokenised.
        wordings: texts for the encoder.
        principles: K.
    """

    pairs: int
    answers: int
    prompt_tokens: float
    answer_tokens: float
    longest: int
    corpus: int
    sampled: int
    wordings: int
    principles: int

    @property
    def tokens(self) -> float:
        """Of a prompt with its answer."""
        return self.prompt_tokens + self.answer_tokens


@dataclass(frozen=True)
class Cost:
    """One piece of work.

    Attributes:
        name: a stage, or what precedes it.
        steps: of the optimiser; 0 where nothing is trained.
        tokens: that the body reads, a backward pass counted like a forward pass.
        operations: on the device that holds the backbone.
        cpu_operations: on the CPU, where heads and encoder are trained whatever the device.
        bytes: that the device's cores read.
        memory: bytes on the device, by what takes them.
    """

    name: str
    steps: int
    tokens: float
    operations: float
    cpu_operations: float
    bytes: float
    memory: dict[str, float]


@dataclass(frozen=True)
class Estimate:
    """What a recipe will cost.

    Attributes:
        backbone: its name.
        parameters: all numbers of the backbone.
        volume: the data.
        costs: what is done, in order.
        devices: this machine first, then GPUs for comparison.
        seconds: by device and piece of work.
        disk: bytes of cached states.
        choice: the dtype in which the backbone is loaded here, and why where it is not the checkpoint's own.
        gpu_memory: the most bytes on a GPU that computes in the checkpoint's own dtype.
    """

    backbone: str
    parameters: int
    volume: Volume
    costs: tuple[Cost, ...]
    devices: tuple[Device, ...]
    seconds: dict[str, dict[str, float]]
    disk: float
    choice: DtypeChoice
    gpu_memory: float

    @property
    def memory(self) -> float:
        """The most bytes that any piece of work needs on the device here."""
        return _most_memory(self.costs)

    def fits(self, gigabytes: float) -> bool:
        """Is a GPU's memory enough, with a tenth of it to spare?"""
        return self.gpu_memory <= _RESERVED * gigabytes * 1e9


def estimate(recipe: TrainRecipe) -> Estimate:
    """Count what a recipe will cost; measures this machine for about two seconds.

    Raises:
        ModelLoadError: the backbone's configuration or tokenizer cannot be had.
        DataError: the data are wrong, or cannot be had.
    """
    outline = load_outline(recipe.backbone)
    principles = () if recipe.conditioning == "prompt" else recipe.heads.principles
    data = load_pairs(recipe.data, recipe.seed, principles)
    volume = measure_volume(recipe, data, outline.tokenizer, context_length(outline.model))
    return price(recipe, outline, volume, measure_machine(), chosen_device(recipe.backbone.device))


def price(
    recipe: TrainRecipe,
    outline: Outline,
    volume: Volume,
    machine: Sequence[Device],
    place: torch.device | None = None,
) -> Estimate:
    """The costs of a recipe whose sizes are known.

    Args:
        recipe: what is to be trained.
        outline: its backbone.
        volume: its data.
        machine: the device that computes here, and this machine's CPU; see `measure_machine`.
        place: that device to torch, on which the dtype depends; by default one that is fast in the checkpoint's own.
    """
    own = DtypeChoice(outline.dtype if recipe.backbone.dtype == "auto" else getattr(torch, recipe.backbone.dtype))
    choice = own if place is None or recipe.backbone.dtype != "auto" else choose_dtype(outline.dtype, place)
    costs = tuple(_costs(recipe, replace(outline, dtype=choice.dtype), volume))
    on_gpu = _costs(recipe, replace(outline, dtype=own.dtype), volume)
    here, cpu = machine
    devices = (here, *GPUS)
    seconds = {device.name: {cost.name: _seconds(cost, device, cpu) for cost in costs} for device in devices}
    disk = volume.answers * volume.answer_tokens * _cached_bytes(recipe, outline) if _caches(recipe) else 0.0
    return Estimate(
        outline.name, outline.parameters, volume, costs, devices, seconds, disk, choice, _most_memory(on_gpu)
    )


def measure_volume(recipe: TrainRecipe, data: PairData, tokenizer: Any, context: int | None = None) -> Volume:
    """Count pairs and distinct answers, and tokenise a sample of them; `context` is what the backbone can read."""
    splits = [data.train, *(split.pairs for split in data.validation)]
    distinct: dict[tuple[str, str], tuple[PreferencePair, str]] = {}
    for pairs in splits:
        for pair in pairs:
            for answer in (pair.chosen, pair.rejected):
                distinct.setdefault((str(pair.prompt), answer), (pair, answer))
    sample = random.Random(recipe.seed).sample(list(distinct.values()), min(_SAMPLE, len(distinct)))
    most = recipe.data.max_answer_tokens
    longest = cut_to_context(context, recipe.data.max_prompt_tokens, most)
    prompts = [len(encode_prompt(tokenizer, pair.prompt, longest, place=pair.place)) for pair, _ in sample]
    answers = [
        encode_answer(tokenizer, answer, most if (left := room(context, read)) is None else min(most, left))
        for read, (_, answer) in zip(prompts, sample, strict=True)
    ]
    seen = len({token for answer in answers for token in answer})
    names = recipe.heads.principles or {name for pair in data.train for name in pair.preference}

    return Volume(
        pairs=len(data.train),
        answers=len(distinct),
        prompt_tokens=statistics.fmean(prompts),
        answer_tokens=statistics.fmean(len(answer) for answer in answers),
        longest=max(prompt + len(answer) for prompt, answer in zip(prompts, answers, strict=True)),
        corpus=min(len(tokenizer), round(seen * math.sqrt(len(distinct) / len(sample)))),
        sampled=len(sample),
        wordings=sum(map(len, data.texts.values())),
        principles=len(names),
    )


def _most_memory(costs: Iterable[Cost]) -> float:
    return max(sum(cost.memory.values()) for cost in costs)


def _costs(recipe: TrainRecipe, outline: Outline, volume: Volume) -> list[Cost]:
    costs, adapted = [], False
    for stage in recipe.stages:
        if isinstance(stage, LoraStage):
            costs += _lora(stage, recipe, outline, volume)
            adapted = True
            continue
        name = "cache through the adapter" if adapted else "cache"
        if name not in [cost.name for cost in costs]:
            costs.append(_cache(name, recipe, outline, volume, passes=2 if adapted else 1))
        costs.append(_heads(stage, recipe, outline, volume))
    return costs


def _cache(name: str, recipe: TrainRecipe, outline: Outline, volume: Volume, passes: int) -> Cost:
    vocabulary, hidden = outline.unembedding
    tokens, answered = volume.answers * volume.tokens, volume.answers * volume.answer_tokens
    normaliser = vocabulary if _exact(recipe, outline) else volume.corpus
    operations = passes * (tokens * _forward(outline, volume) + 2 * answered * normaliser * hidden)
    weights = _weight_bytes(recipe.backbone, outline)
    width, wide = outline.dtype.itemsize, max(map(max, outline.linears.values()))
    memory = {
        "weights": weights,
        "activations": _CACHE_TOKENS * (4 * hidden + 3 * wide) * width,
        "logits": 4 * (normaliser * hidden + _CACHE_LOGITS),
    }
    return Cost(name, 0, passes * tokens, operations, 0.0, weights * passes * tokens / _CACHE_TOKENS, memory)


def _heads(stage: HeadsStage | EncoderStage, recipe: TrainRecipe, outline: Outline, volume: Volume) -> Cost:
    vocabulary, hidden = outline.unembedding
    steps = _steps(stage, stage.batch_size, volume)
    in_step = 2 * stage.batch_size * volume.answer_tokens
    dense = recipe.conditioning == "prompt"
    mixed = hidden if dense else volume.principles * recipe.heads.rank  # numbers that a state becomes in the heads
    heads = 6 * hidden * hidden if dense else 12 * mixed * hidden
    if _exact(recipe, outline):
        token = 4.0 * vocabulary * hidden
    else:
        candidates = recipe.normaliser_tokens + 1
        distinct = min(volume.corpus, in_step * candidates)
        token = 6 * candidates * mixed + 6 * distinct * hidden * mixed / in_step
    operations = steps * in_step * (token + heads)
    read = volume.wordings * _WORDING_TOKENS if isinstance(stage, EncoderStage) else 0
    memory = {"weights": _weight_bytes(recipe.backbone, outline)}
    return Cost(stage.stage, steps, read, read * _forward(outline, volume), operations, 0.0, memory)


def _lora(stage: AdapterStage | JointStage, recipe: TrainRecipe, outline: Outline, volume: Volume) -> list[Cost]:
    vocabulary, hidden = outline.unembedding
    forward, weights = _forward(outline, volume), _weight_bytes(recipe.backbone, outline)
    width = outline.dtype.itemsize
    tokens, answered = volume.answers * volume.tokens, volume.answers * volume.answer_tokens
    adapted = [shape for path, shape in outline.linears.items() if _is_target(path, stage)]
    trained = stage.lora_rank * sum(map(sum, adapted))
    steps = _steps(stage, stage.batch_size * stage.accumulation_steps, volume)
    batch = 2 * stage.batch_size * volume.tokens
    visits = steps * stage.accumulation_steps * batch
    passes = 3 if stage.gradient_checkpointing else 2
    logits = 4 * vocabulary * hidden * volume.answer_tokens / volume.tokens
    operations = visits * (passes * forward + 6 * trained + logits)
    rows = 2 * stage.batch_size * volume.longest
    inside = rows * width * sum(map(sum, outline.linears.values())) / outline.layers
    inputs = rows * width * hidden
    kept = (inputs if stage.gradient_checkpointing else inside) * outline.layers
    memory = {
        "weights": weights,
        "trained": trained * _TRAINED_BYTES,
        "activations": kept + inside * (2 if stage.gradient_checkpointing else 1),
        "logits": 3 * 4 * min(rows, _LOGIT_TOKENS) * vocabulary,
    }
    reference = tokens * forward + 2 * answered * vocabulary * hidden
    read = weights * passes * steps * stage.accumulation_steps
    return [
        Cost(f"reference of {stage.stage}", 0, tokens, reference, 0.0, weights * tokens / batch, {"weights": weights}),
        Cost(stage.stage, steps, passes * visits, operations, 0.0, read, memory),
    ]


def _forward(outline: Outline, volume: Volume) -> float:
    """F: operations for one token to go through the body."""
    numbers = sum(before * after for before, after in outline.linears.values())
    return 2.0 * numbers + 2.0 * outline.layers * volume.tokens * outline.attention_width


def _steps(stage: Stage, pairs: int, volume: Volume) -> int:
    return stage.steps or math.ceil((stage.epochs or 1) * volume.pairs / pairs)


def _is_target(path: str, stage: LoraStage) -> bool:
    if stage.target_modules == "all-linear":
        return True
    return any(path == name or path.endswith(f".{name}") for name in stage.target_modules)


def _exact(recipe: TrainRecipe, outline: Outline) -> bool:
    return outline.unembedding[0] <= recipe.exact_vocabulary


def _caches(recipe: TrainRecipe) -> bool:
    return any(not isinstance(stage, LoraStage) for stage in recipe.stages)


def _cached_bytes(recipe: TrainRecipe, outline: Outline) -> float:
    """Of one answer token: its state, and where the loss is restricted its candidates' numbers and logits."""
    state = outline.unembedding[1] * (2 if recipe.cache_dtype == "bfloat16" else 4)
    adapted = isinstance(recipe.stages[0], LoraStage)
    if _exact(recipe, outline):
        return state * (1 + adapted)
    return state + (recipe.normaliser_tokens + 1) * (8 + 4 * adapted)


def _weight_bytes(settings: ModelSettings, outline: Outline) -> float:
    """Of the backbone; packing takes the body's linear layers only."""
    plain = outline.dtype.itemsize
    if settings.quantization is None:
        return outline.parameters * plain
    packed = sum(before * after for before, after in outline.linears.values())
    rows = sum(after for _, after in outline.linears.values())
    constants = packed / 64 if settings.quantization == "4bit" else rows
    bits = 4 if settings.quantization == "4bit" else 8
    return (outline.parameters - packed) * plain + packed * bits / 8 + 4 * constants


def _seconds(cost: Cost, device: Device, cpu: Device) -> float:
    return max(cost.operations / device.rate, cost.bytes / device.bandwidth) + cost.cpu_operations / cpu.rate
