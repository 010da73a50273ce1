"""What a `train-rm` recipe will cost, from its configuration and a sample of its data; nothing is trained or written.

Time is operations over the rate of this machine, which is measured. With N the parameters in the body's linear layers,
L layers, D the width of its query heads and T tokens of context, reading one token costs (Kaplan et al. 2020, arXiv
2001.08361, section 2.1) a forward pass of

    F = 2 N + 2 L T D,      and 2 V H for logits over V tokens

A LoRA stage costs two of them, since frozen weights need no gradient, one more with gradient checkpointing, and 6 P for
its P trainable parameters (Hu et al. 2021, arXiv 2106.09685). Stages on cached states read every distinct answer once;
on the CPU, a token of training then costs 4 V H, or 6 C K r + 6 U H K r / tokens of a step with C candidates of which U
are distinct in a step, and 12 K r H for the K heads of rank r.

Memory is the weights (4 bits with a float32 constant for each 64, 8 bits with one for each row: Dettmers et al. 2023,
arXiv 2305.14314), 16 bytes a trainable parameter (itself, its gradient, AdamW's two moments), and the activations of
the longest texts.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from pad_cli.models.dtype import DtypeChoice, choose_dtype
from pad_cli.models.language_model import context_length
from pad_cli.models.loading import Outline, chosen_device, load_outline
from pad_cli.pairs import load_pairs
from pad_cli.recipe import AdapterStage, EncoderStage, HeadsStage, JointStage, LoraStage, TrainRecipe
from pad_cli.records import PairData
from pad_cli.training.loop import steps_of
from pad_cli.training.pair_table import SequenceBook

_SAMPLE = 2000  # answers that are tokenised
_CACHE_TOKENS = 8192  # of one forward pass when states are cached
_CACHE_LOGITS = 2**20  # in one piece of it
_LOGIT_TOKENS = 1024  # whose logits a LoRA stage holds at once
_PARAPHRASE_TOKENS = 24
_TRAINABLE_BYTES = 16
_USABLE = 0.9  # share of a device's memory
_UTILISATION = 0.4  # of a GPU's peak (PaLM's training reports 0.46, arXiv 2204.02311)


@dataclass(frozen=True)
class Device:
    """What computes: its name, and the operations per second that training reaches on it."""

    name: str
    rate: float


GPUS = tuple(
    Device(name, _UTILISATION * peak * 1e12)
    for name, peak in (("RTX 4090 24 GB", 165.2), ("A100 80 GB", 312), ("H100 SXM 80 GB", 989.4))
)
"""Dense bfloat16 tensor peaks as NVIDIA publishes them (Ada white paper; data sheets of A100 80GB SXM and H100 SXM)."""


@dataclass(frozen=True)
class Volume:
    """How much data there is; lengths are in tokens, after cutting, of `sampled` answers."""

    pairs: int
    answers: int  # distinct (prompt, answer) of training and validation, each of which is read once
    prompt_tokens: float  # mean
    answer_tokens: float  # mean
    longest: int  # prompt with its answer
    corpus: int  # distinct tokens of all answers, extended from the sample by Heaps' law (exponent 0.5)
    sampled: int
    paraphrases: int  # texts for the encoder
    principles: int  # K

    @property
    def tokens(self) -> float:
        """Of a prompt with its answer."""
        return self.prompt_tokens + self.answer_tokens


@dataclass(frozen=True)
class Cost:
    """One piece of work: a stage, or what precedes it."""

    name: str
    steps: int  # of the optimiser; 0 where nothing is trained
    tokens: float  # that the body reads, a backward pass counted like a forward pass
    operations: float  # on the device of the backbone
    cpu_operations: float  # where heads and encoder are trained whatever the device
    memory: dict[str, float]  # bytes on the device, by what takes them


@dataclass(frozen=True)
class Estimate:
    """What a recipe will cost."""

    backbone: str
    parameters: int
    volume: Volume
    costs: tuple[Cost, ...]  # in order
    seconds: dict[str, dict[str, float]]  # of each piece of work, on this machine and on GPUs for comparison
    disk: float  # bytes of cached states
    choice: DtypeChoice  # the dtype in which the backbone is loaded here
    gpu_memory: float  # the most bytes on a GPU that computes in the checkpoint's own dtype

    @property
    def memory(self) -> float:
        """The most bytes that any piece of work needs on the device here."""
        return _most_memory(self.costs)

    def fits(self, gigabytes: float) -> bool:
        """Is a GPU's memory enough, with a tenth of it to spare?"""
        return self.gpu_memory <= _USABLE * gigabytes * 1e9


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


def measure_machine() -> tuple[Device, Device]:
    """This machine's fastest device and its CPU, each by matrix products for about a second."""
    cpu = Device("this machine's CPU", _rate(torch.device("cpu"), torch.float32, size=1536))
    if not torch.cuda.is_available():
        return cpu, cpu
    rate = _rate(torch.device("cuda"), torch.bfloat16, size=8192)
    return Device(f"this {torch.cuda.get_device_name()}", _UTILISATION * rate), cpu


def _rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Operations per second of the fastest product of two matrices."""
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    shortest, end = math.inf, time.perf_counter() + 1
    while time.perf_counter() < end:
        start = time.perf_counter()
        matrix @ matrix
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        shortest = min(shortest, time.perf_counter() - start)
    return 2 * size**3 / shortest


def measure_volume(recipe: TrainRecipe, data: PairData, tokenizer: Any, context: int | None = None) -> Volume:
    """Count pairs and distinct answers, and tokenise a sample of them; `context` is what the backbone can read."""
    pairs = [*data.train, *(pair for split in data.validation for pair in split.pairs)]
    distinct = {(str(pair.prompt), answer): (pair, answer) for pair in pairs for answer in (pair.chosen, pair.rejected)}
    sample = random.Random(recipe.seed).sample(list(distinct.values()), min(_SAMPLE, len(distinct)))
    book = SequenceBook(tokenizer, recipe.data.max_prompt_tokens, recipe.data.max_answer_tokens, context_length=context)
    for pair, answer in sample:
        book.number(pair, answer)
    names = recipe.heads.principles or {name for pair in data.train for name in pair.preference}
    return Volume(
        pairs=len(data.train),
        answers=len(distinct),
        prompt_tokens=statistics.fmean(len(prompt) for prompt, _ in book.sequences),
        answer_tokens=statistics.fmean(len(answer) for _, answer in book.sequences),
        longest=max(len(prompt) + len(answer) for prompt, answer in book.sequences),
        corpus=min(len(tokenizer), round(len(book.corpus) * math.sqrt(len(distinct) / len(sample)))),
        sampled=len(sample),
        paraphrases=sum(map(len, data.texts.values())),
        principles=len(names),
    )


def price(
    recipe: TrainRecipe, outline: Outline, volume: Volume, machine: Sequence[Device], place: torch.device | None = None
) -> Estimate:
    """The costs of a recipe whose sizes are known.

    Args:
        machine: the device that computes here, and this machine's CPU; see `measure_machine`.
        place: that device to torch, on which the dtype depends; by default one that is fast in the checkpoint's own.
    """
    own = DtypeChoice(outline.dtype if recipe.backbone.dtype == "auto" else getattr(torch, recipe.backbone.dtype))
    choice = own if place is None or recipe.backbone.dtype != "auto" else choose_dtype(outline.dtype, place)
    costs = tuple(_costs(recipe, replace(outline, dtype=choice.dtype), volume))
    device, cpu = machine
    seconds = {
        each.name: {cost.name: cost.operations / each.rate + cost.cpu_operations / cpu.rate for cost in costs}
        for each in (device, *GPUS)
    }
    on_gpu = _most_memory(_costs(recipe, replace(outline, dtype=own.dtype), volume))
    disk = _disk(recipe, outline, volume)
    return Estimate(outline.name, outline.parameters, volume, costs, seconds, disk, choice, on_gpu)


def _most_memory(costs: Sequence[Cost]) -> float:
    return max(sum(cost.memory.values()) for cost in costs)


def _costs(recipe: TrainRecipe, outline: Outline, volume: Volume) -> list[Cost]:
    """The formulas in this module's heading, stage by stage."""
    vocabulary, hidden = outline.unembedding
    layers, width = outline.layers, outline.dtype.itemsize
    shapes = list(outline.linears.values())
    exact = vocabulary <= recipe.exact_vocabulary
    normaliser = vocabulary if exact else volume.corpus
    body = sum(before * after for before, after in shapes)
    forward = 2.0 * body + 2.0 * layers * volume.tokens * outline.attention_width
    read, answers = volume.answers * volume.tokens, volume.answers * volume.answer_tokens
    weights = 1.0 * outline.parameters * width
    if (packing := recipe.backbone.quantization) is not None:  # takes the body's linear layers only
        bits, constants = (4, body / 64) if packing == "4bit" else (8, sum(after for _, after in shapes))
        weights += body * (bits / 8 - width) + 4 * constants

    def cache(name: str, passes: int) -> Cost:
        operations = read * forward + 2 * answers * normaliser * hidden
        memory = {
            "weights": weights,
            "activations": _CACHE_TOKENS * (4 * hidden + 3 * max(map(max, shapes))) * width,
            "logits": 4 * (normaliser * hidden + _CACHE_LOGITS),
        }
        return Cost(name, 0, passes * read, passes * operations, 0.0, memory)

    def on_cached_states(stage: HeadsStage | EncoderStage) -> Cost:
        steps, in_step = steps_of(stage, volume.pairs), 2 * stage.batch_size * volume.answer_tokens
        dense = recipe.conditioning == "prompt"
        narrow = hidden if dense else volume.principles * recipe.heads.rank  # what a state becomes in the heads
        if exact:
            token = 4.0 * vocabulary * hidden
        else:
            candidates = recipe.normaliser_tokens + 1
            distinct = min(volume.corpus, in_step * candidates)
            token = 6 * candidates * narrow + 6 * distinct * hidden * narrow / in_step
        token += 6 * hidden * hidden if dense else 12 * narrow * hidden
        texts = volume.paraphrases * _PARAPHRASE_TOKENS if isinstance(stage, EncoderStage) else 0
        return Cost(stage.stage, steps, texts, texts * forward, steps * in_step * token, {"weights": weights})

    def lora(stage: AdapterStage | JointStage) -> list[Cost]:
        adapted = [
            shape
            for path, shape in outline.linears.items()
            if stage.target_modules == "all-linear" or any(f".{path}".endswith(f".{n}") for n in stage.target_modules)
        ]
        trainable = stage.lora_rank * sum(map(sum, adapted))
        steps = steps_of(stage, volume.pairs)
        visits = steps * stage.accumulation_steps * 2 * stage.batch_size * volume.tokens
        passes = 3 if stage.gradient_checkpointing else 2
        logits = 4 * vocabulary * hidden * volume.answer_tokens / volume.tokens
        rows = 2 * stage.batch_size * volume.longest
        layer = rows * width * sum(map(sum, shapes)) / layers  # what one keeps for its backward pass
        kept = rows * width * hidden * layers + 2 * layer if stage.gradient_checkpointing else layer * (layers + 1)
        memory = {
            "weights": weights,
            "trained": trainable * _TRAINABLE_BYTES,
            "activations": kept,
            "logits": 3 * 4 * min(rows, _LOGIT_TOKENS) * vocabulary,
        }
        reference = read * forward + 2 * answers * vocabulary * hidden
        operations = visits * (passes * forward + 6 * trainable + logits)
        return [
            Cost(f"reference of {stage.stage}", 0, read, reference, 0.0, {"weights": weights}),
            Cost(stage.stage, steps, passes * visits, operations, 0.0, memory),
        ]

    costs: list[Cost] = []
    states = cache("cache", passes=1)
    for stage in recipe.stages:
        if isinstance(stage, LoraStage):
            costs += lora(stage)
            states = cache("cache through the adapter", passes=2)
            continue
        costs += [] if states in costs else [states]
        costs.append(on_cached_states(stage))
    return costs


def _disk(recipe: TrainRecipe, outline: Outline, volume: Volume) -> float:
    """Bytes of cached states: of an answer token its state, and candidates where the normaliser is truncated."""
    if all(isinstance(stage, LoraStage) for stage in recipe.stages):
        return 0.0
    vocabulary, hidden = outline.unembedding
    state = hidden * (2 if recipe.cache_dtype == "bfloat16" else 4)
    adapted = isinstance(recipe.stages[0], LoraStage)
    if vocabulary <= recipe.exact_vocabulary:
        token = state * (1 + adapted)
    else:
        token = state + (recipe.normaliser_tokens + 1) * (8 + 4 * adapted)
    return volume.answers * volume.answer_tokens * token
