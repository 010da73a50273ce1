"""What other people's trainer is surrounded with: trackers that exist, errors that say what to do, a backbone that
stays differentiable, and quiet."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from transformers.integrations import get_available_reporting_integrations
from transformers.utils import logging as transformers_logging

from pad_cli.errors import RecipeError, TrainingError, did_you_mean
from pad_cli.models.scoring import is_out_of_memory
from pad_cli.recipe import AdapterStage, JointStage

_TALKATIVE = ("accelerate", "bitsandbytes", "datasets", "peft", "trl")


def check_trackers(names: Sequence[str]) -> None:
    """Raises RecipeError where a tracker is none that transformers can report to here."""
    known = [*get_available_reporting_integrations(), "all", "none"]
    for name in names:
        if name not in known:
            raise RecipeError(
                f"report_to: there is no tracker '{name}' here.",
                did_you_mean(name, known) + " Others have to be installed first.",
            )


@contextmanager
def memory_explained(stage: AdapterStage | JointStage) -> Iterator[None]:
    """Inside, memory that is too small becomes a TrainingError that says which setting to change."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"Training {stage.stage}: memory is too small for {stage.batch_size} pairs at once.",
            "Halve batch_size and double accumulation_steps, set gradient_checkpointing: true, or load the backbone "
            "with quantization: 4bit.",
        ) from error


def keep_differentiable(model: Any) -> None:
    """Where bitsandbytes repacks 4-bit weights on a CPU when they are read without gradients, keep it from doing so.

    Repacked weights pass no gradients on, and its way back does not give the same weights (0.50).

    Raises:
        TrainingError: it has done so already.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            if getattr(module.weight.quant_state, "packing_format_for_cpu", False):
                raise TrainingError(
                    "The backbone's 4-bit weights were read on this CPU before; now they pass no gradients on.",
                    "Train LoRA weights before other stages, on a GPU, or with quantization: 8bit.",
                )
            module.support_avx512bf16_for_cpu = False


@contextmanager
def quiet() -> Iterator[None]:
    """No talk but ours: on the level of warnings every library used here says something at each run."""
    verbosity = transformers_logging.get_verbosity()
    levels = {name: logging.getLogger(name).level for name in _TALKATIVE}
    transformers_logging.set_verbosity_error()
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
