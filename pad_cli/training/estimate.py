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
from collections.abc import Iterable, Sequence
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
    """How much data there is.

    Attributes:
        pairs: training pairs.
        answers: distinct (prompt, answer) of training and validation, each of which is read once.
        prompt_tokens, answer_tokens: means after cutting, of `sampled` answers.
        longest: of the sampled prompts with their answers, in tokens.
        corpus: distinct tokens of the answers, extended from the sample by Heaps' law (exponent 0.5).
        paraphrases: texts for the encoder.
        principles: K.
    """

    pairs: int
    answers: int
    prompt_tokens: float
    answer_tokens: float
    longest: int
    corpus: int
    sampled: int
    paraphrases: int
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
        operations: on the device of the backbone.
        cpu_operations: on the CPU, where heads and encoder are trained whatever the device.
        memory: bytes on the device, by what takes them.
    """

    name: str
    steps: int
    tokens: float
    operations: float
    cpu_operations: float
    memory: dict[str, float]


@dataclass(frozen=True)
class Estimate:
    """What a recipe will cost.

    Attributes:
        backbone: its name.
        parameters: of the backbone.
        volume: the data.
        costs: the work, in order.
        seconds: of each piece of work, on this machine and on GPUs for comparison.
        disk: bytes of cached states.
        choice: the dtype in which the backbone is loaded here, and why where it is not the checkpoint's own.
        gpu_memory: the most bytes on a GPU that computes in the checkpoint's own dtype.
    """

    backbone: str
    parameters: int
    volume: Volume
    costs: tuple[Cost, ...]
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
    here = _Sizes(recipe, replace(outline, dtype=choice.dtype), volume)
    on_gpu = _Sizes(recipe, replace(outline, dtype=own.dtype), volume)
    costs, (device, cpu) = tuple(here.costs()), machine
    seconds = {
        each.name: {cost.name: cost.operations / each.rate + cost.cpu_operations / cpu.rate for cost in costs}
        for each in (device, *GPUS)
    }
    memory = _most_memory(on_gpu.costs())
    return Estimate(outline.name, outline.parameters, volume, costs, seconds, here.disk(), choice, memory)


def _most_memory(costs: Iterable[Cost]) -> float:
    return max(sum(cost.memory.values()) for cost in costs)


class _Sizes:
    """Costs of the pieces of a recipe's work from the sizes of its backbone and data; see the module's formulas."""

    def __init__(self, recipe: TrainRecipe, outline: Outline, volume: Volume) -> None:
        self.recipe, self.outline, self.volume = recipe, outline, volume
        self.vocabulary, self.hidden = outline.unembedding
        self.linears = outline.linears
        self.exact = self.vocabulary <= recipe.exact_vocabulary
        self.read_tokens = volume.answers * volume.tokens
        self.answer_tokens = volume.answers * volume.answer_tokens
        body = sum(before * after for before, after in self.linears.values())
        self.forward = 2.0 * body + 2.0 * outline.layers * volume.tokens * outline.attention_width
        self.weights = outline.parameters * outline.dtype.itemsize * 1.0
        if (packing := recipe.backbone.quantization) is not None:  # takes the body's linear layers only
            rows = sum(after for _, after in self.linears.values())
            bits, constants = (4, body / 64) if packing == "4bit" else (8, rows)
            self.weights += body * (bits / 8 - outline.dtype.itemsize) + 4 * constants

    def costs(self) -> list[Cost]:
        costs: list[Cost] = []
        adapted = False
        for stage in self.recipe.stages:
            if isinstance(stage, LoraStage):
                costs += self.lora(stage)
                adapted = True
                continue
            cache = self.cache("cache through the adapter" if adapted else "cache", passes=2 if adapted else 1)
            if cache.name not in [cost.name for cost in costs]:
                costs.append(cache)
            costs.append(self.on_cached_states(stage))
        return costs

    def cache(self, name: str, passes: int) -> Cost:
        normaliser = self.vocabulary if self.exact else self.volume.corpus
        operations = self.read_tokens * self.forward + 2 * self.answer_tokens * normaliser * self.hidden
        widest = max(map(max, self.linears.values()))
        memory = {
            "weights": self.weights,
            "activations": _CACHE_TOKENS * (4 * self.hidden + 3 * widest) * self.outline.dtype.itemsize,
            "logits": 4 * (normaliser * self.hidden + _CACHE_LOGITS),
        }
        return Cost(name, 0, passes * self.read_tokens, passes * operations, 0.0, memory)

    def on_cached_states(self, stage: HeadsStage | EncoderStage) -> Cost:
        recipe, hidden, steps = self.recipe, self.hidden, steps_of(stage, self.volume.pairs)
        in_step = 2 * stage.batch_size * self.volume.answer_tokens
        dense = recipe.conditioning == "prompt"
        narrow = hidden if dense else self.volume.principles * recipe.heads.rank  # what a state becomes in the heads
        heads = 6 * hidden * hidden if dense else 12 * narrow * hidden
        if self.exact:
            token = 4.0 * self.vocabulary * hidden
        else:
            candidates = recipe.normaliser_tokens + 1
            distinct = min(self.volume.corpus, in_step * candidates)
            token = 6 * candidates * narrow + 6 * distinct * hidden * narrow / in_step
        read = self.volume.paraphrases * _PARAPHRASE_TOKENS if isinstance(stage, EncoderStage) else 0
        operations = steps * in_step * (token + heads)
        return Cost(stage.stage, steps, read, read * self.forward, operations, {"weights": self.weights})

    def lora(self, stage: AdapterStage | JointStage) -> list[Cost]:
        volume, width, layers = self.volume, self.outline.dtype.itemsize, self.outline.layers
        adapted = [
            shape
            for path, shape in self.linears.items()
            if stage.target_modules == "all-linear"
            or any(f".{path}".endswith(f".{name}") for name in stage.target_modules)
        ]
        trainable = stage.lora_rank * sum(map(sum, adapted))
        steps = steps_of(stage, volume.pairs)
        visits = steps * stage.accumulation_steps * 2 * stage.batch_size * volume.tokens
        passes = 3 if stage.gradient_checkpointing else 2
        logits = 4 * self.vocabulary * self.hidden * volume.answer_tokens / volume.tokens
        operations = visits * (passes * self.forward + 6 * trainable + logits)
        rows = 2 * stage.batch_size * volume.longest
        layer = rows * width * sum(map(sum, self.linears.values())) / layers  # what one keeps for its backward pass
        saved = rows * width * self.hidden if stage.gradient_checkpointing else layer
        memory = {
            "weights": self.weights,
            "trained": trainable * _TRAINABLE_BYTES,
            "activations": saved * layers + layer * (2 if stage.gradient_checkpointing else 1),
            "logits": 3 * 4 * min(rows, _LOGIT_TOKENS) * self.vocabulary,
        }
        reference = self.read_tokens * self.forward + 2 * self.answer_tokens * self.vocabulary * self.hidden
        return [
            Cost(f"reference of {stage.stage}", 0, self.read_tokens, reference, 0.0, {"weights": self.weights}),
            Cost(stage.stage, steps, passes * visits, operations, 0.0, memory),
        ]

    def disk(self) -> float:
        """Bytes of cached states: of an answer token its state, and candidates where the normaliser is truncated."""
        if all(isinstance(stage, LoraStage) for stage in self.recipe.stages):
            return 0.0
        state = self.hidden * (2 if self.recipe.cache_dtype == "bfloat16" else 4)
        adapted = isinstance(self.recipe.stages[0], LoraStage)
        if self.exact:
            return self.answer_tokens * state * (1 + adapted)
        return self.answer_tokens * (state + (self.recipe.normaliser_tokens + 1) * (8 + 4 * adapted))
