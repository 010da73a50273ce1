"""What a `train-rm` recipe will cost: each kind of its work is done on a few pairs, timed, and multiplied.

The backbone is loaded and every pair is tokenised, as in training. Then a few pairs go through the stages, a few steps
each, in a temporary directory. The time to read answers grows with their tokens, that of a stage with its steps and the
pairs in each. Validation, calibration and the report are not counted.
"""

from __future__ import annotations

import functools
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from pad_cli.errors import UsageError
from pad_cli.models.dtype import dtype_name
from pad_cli.models.heads import PreferenceHeads
from pad_cli.models.language_model import load_language_model
from pad_cli.models.scoring import TokenSequence, all_log_probs
from pad_cli.pairs import makes_pairs
from pad_cli.recipe import DistilStage, LoraStage, TrainRecipe
from pad_cli.training.distil import answers_to_read
from pad_cli.training.loop import TrainingStage, steps_of
from pad_cli.training.pair_table import TrainingData, gather_training_data
from pad_cli.training.stages import TrainingRun
from pad_cli.training.train import read_pairs, stage_instructions

_PAIRS = 64  # that are measured, at most
_STEPS = 3  # of each stage; the first one warms up and is not timed


@dataclass(frozen=True)
class Work:
    """One piece of work: reading all answers, or a stage."""

    name: str
    steps: int  # of the optimiser; 0 where answers are only read
    tokens: int  # of prompts and answers, each as often as it is read or trained on
    seconds: float
    memory: int | None  # the most bytes on a GPU, weights included; None on other devices


@dataclass(frozen=True)
class Estimate:
    """What a recipe will cost on this machine."""

    backbone: str
    parameters: int
    dtype: str
    weights: int  # bytes of the backbone in memory
    pairs: int  # for training
    answers: int  # distinct ones
    work: tuple[Work, ...]  # in order
    disk: int  # bytes of cached states


def estimate(recipe: TrainRecipe) -> Estimate:
    """Measure what a recipe will cost; writes nothing outside of a temporary directory.

    Raises:
        DataError, ModelLoadError, RecipeError, TrainingError: as training would; memory may be too small for a batch.
    """
    if recipe.data.source is not None and makes_pairs(recipe.data.source):
        raise UsageError(
            f"--dry-run: the pairs of the source '{recipe.data.source}' are not written yet.",
            "Run it with fewer prompts first, for example --set data.options.limit=4; what is written is kept.",
        )
    load_backbone = functools.cache(lambda: load_language_model(recipe.backbone))
    pairs, names = read_pairs(recipe, load_backbone)
    backbone = load_backbone()
    data = gather_training_data(recipe, pairs, backbone)
    weights, lengths = int(backbone.model.get_memory_footprint()), _lengths(data.sequences)
    work: list[Work] = []
    marks: list[float] = []  # when each step ended
    watch = register_optimizer_step_post_hook(lambda *_: marks.append(time.monotonic()))
    with tempfile.TemporaryDirectory() as scratch, watch:
        sample = _draw(data, Path(scratch) / "states")
        share = sum(lengths) / sum(_lengths(sample.sequences))
        longer = max(lengths) / max(_lengths(sample.sequences))
        heads = PreferenceHeads(names, backbone.hidden_size, recipe.heads.rank, recipe.seed)
        instructions = stage_instructions(recipe, names)
        run = TrainingRun(sample, heads, pairs.texts, Path(scratch), instructions)

        def read(name: str) -> Work:
            seconds, memory = _measure(backbone.device, lambda: run.rewards)
            return Work(name, 0, sum(lengths), seconds * share, memory)

        def items(of: TrainingData, stage: TrainingStage) -> int:
            if isinstance(stage, DistilStage):
                return len(answers_to_read(of.named, instructions, of.sequences, of.seed))
            return len(of.train)

        def train(stage: TrainingStage) -> list[Work]:
            marks.clear()
            of_sample = items(sample, stage)
            size, passes = min(stage.batch_size, of_sample), getattr(stage, "accumulation_steps", 1)
            changed = {"steps": _STEPS, "epochs": None, "batch_size": size, "evaluate_every": None, "patience": None}
            if isinstance(stage, LoraStage):
                changed["accumulation_steps"] = 1
            seconds, memory = _measure(backbone.device, lambda: run.train(stage.model_copy(update=changed)))
            if memory is not None and isinstance(stage, LoraStage):  # a batch of the longest answers takes more
                memory = weights + round((memory - weights) * longer)
            steps, trained = steps_of(stage, items(data, stage)), stage.batch_size * passes
            # a scaler of float16 leaves out steps that overflow
            step = (marks[-1] - marks[0]) / (len(marks) - 1) if len(marks) > 1 else seconds / _STEPS
            answers = trained if isinstance(stage, DistilStage) else 2 * trained
            tokens = round(steps * answers * sum(lengths) / len(lengths))
            work = Work(stage.stage, steps, tokens, steps * trained / size * step, memory)
            if not isinstance(stage, DistilStage):
                return [work]
            again = items(data, stage)
            seconds = (seconds - _STEPS * step) * again / of_sample
            return [
                Work("reading under instructions", 0, round(again * sum(lengths) / len(lengths)), seconds, memory),
                work,
            ]

        all_log_probs(backbone, sample.sequences[:2])  # the first forward pass is slower
        plain, first = read("caching states"), set(sample.states.iterdir())
        states: Work | None = plain
        for stage in recipe.stages:
            if isinstance(stage, LoraStage):
                work += [replace(plain, name=f"reading for {stage.stage}"), *train(stage)]
                states = None
            else:
                states = states or read("caching states through the adapter")
                work += train(stage) if states in work else [states, *train(stage)]
        kept = [path for path in sample.states.iterdir() if plain in work or path not in first]
        files = sum(path.stat().st_size for path in kept)
    return Estimate(
        backbone.name, backbone.model.num_parameters(), dtype_name(backbone.dtype), weights,
        len(data.train), len(data.sequences), tuple(work), round(files * share),
    )  # fmt: skip


def _draw(data: TrainingData, states: Path) -> TrainingData:
    """A few of the training pairs, without validation; their states are cached elsewhere."""
    named = data.named or data.train
    table = named.rows(random.Random(data.seed).sample(range(len(named)), min(_PAIRS, len(named))))
    used, places = table.answers(torch.arange(len(table))).unique(return_inverse=True)
    chosen, rejected = places.split(len(table))
    sequences = [data.sequences[number] for number in used.tolist()]
    table = replace(table, chosen=chosen, rejected=rejected)
    return replace(data, sequences=sequences, train=table, named=table.named(), validation=(), states=states)


def _measure(device: torch.device, work: Callable[[], object]) -> tuple[float, int | None]:
    """Seconds that some work takes, and the most bytes on a GPU meanwhile."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    started = time.monotonic()
    work()
    return time.monotonic() - started, torch.cuda.max_memory_allocated(device) if on_gpu else None


def _lengths(sequences: list[TokenSequence]) -> list[int]:
    return [len(prompt) + len(answer) for prompt, answer in sequences]
