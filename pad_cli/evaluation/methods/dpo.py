"""Plain DPO of one LoRA adapter, by TRL's trainer and PEFT."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import PrinterCallback, TrainerCallback
from transformers.pytorch_utils import Conv1D
from trl import DPOConfig, DPOTrainer

from pad_cli.errors import TrainingError
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_answer, encode_prompt
from pad_cli.recipe import AdapterStage
from pad_cli.records import PreferencePair
from pad_cli.system.progress import Bar, bar
from pad_cli.system.runs import storage_errors
from pad_cli.training.lora import linear_layers, unchanged
from pad_cli.training.surroundings import keep_differentiable, memory_explained, quiet


def train_dpo(
    stage: AdapterStage,
    policy: LanguageModel,
    pairs: Sequence[PreferencePair],
    limits: tuple[int, int],
    directory: Path,
    target: Path,
    seed: int,
) -> tuple[float, int]:
    """Train an adapter of the policy, or resume from the last checkpoint; the policy is as before afterwards.

    Args:
        stage: the settings.
        policy: the language model; without the adapter it is the reference.
        pairs: the training pairs.
        limits: longest prompt, which is cut at its beginning, and longest answer, cut at its end, in tokens.
        directory: of the checkpoints.
        target: an existing directory, for PEFT's two files.
        seed: of everything random.

    Returns:
        Seconds of the whole training, as if all of it ran now, and the number of trainable parameters.

    Raises:
        RecipeError: a layer is unknown.
        TrainingError: the weights are no longer finite, or memory is too small.
        StorageError: a directory cannot be written.
    """
    model = policy.model
    with ExitStack() as stack:
        stack.enter_context(memory_explained(stage))
        stack.enter_context(unchanged(*model.modules(), model.config, model.config.get_text_config(decoder=True)))
        stack.enter_context(unchanged(model.generation_config))
        stack.enter_context(quiet())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(storage_errors(directory))
        keep_differentiable(model)
        in_a_step = stage.batch_size * stage.accumulation_steps
        steps = stage.steps or math.ceil((stage.epochs or 1) * len(pairs) / in_a_step)
        progress = stack.enter_context(bar("Training DPO", total=steps))
        trainer = _Trainer(
            model=model,
            args=_arguments(stage, policy, directory, steps, seed),
            train_dataset=_dataset(policy.tokenizer, pairs, limits, steps * in_a_step, seed),
            processing_class=policy.tokenizer,
            peft_config=_lora_config(stage, model),
            callbacks=[_Progress(progress)],
        )
        trainer.remove_callback(PrinterCallback)
        checkpoint, started = _last_checkpoint(directory), time.monotonic()
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
        seconds = (time.monotonic() - started) * steps / max(steps - _step(checkpoint), 1)
        tensors = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
        if not all(parameter.isfinite().all() for parameter in tensors):
            raise TrainingError("DPO: the weights are no longer finite.", "Lower learning_rate.")
        trainer.model.save_pretrained(target)
    model.eval().requires_grad_(False)
    return seconds, sum(parameter.numel() for parameter in tensors)


class _Trainer(DPOTrainer):  # type: ignore[misc]  # mypy does not follow trl
    """TRL's trainer, on pairs tokenized as everywhere in this package."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _send_telemetry(self) -> None:
        """Nothing is sent."""

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None for a checkpoint."""


class _Progress(TrainerCallback):  # type: ignore[misc]  # nor transformers
    def __init__(self, progress: Bar) -> None:
        self._progress = progress

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._progress.skip(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._progress.advance()


def _dataset(
    tokenizer: Any, pairs: Sequence[PreferencePair], limits: tuple[int, int], count: int, seed: int
) -> Dataset:
    """`count` pairs in the order of training: all of them again and again, each time in another random order."""
    max_prompt, max_answer = limits
    rows = [
        {
            "prompt_ids": encode_prompt(tokenizer, pair.prompt, max_prompt, place=pair.place),
            "chosen_ids": encode_answer(tokenizer, pair.chosen)[:max_answer],
            "rejected_ids": encode_answer(tokenizer, pair.rejected)[:max_answer],
        }
        for pair in pairs
    ]
    generator = torch.Generator().manual_seed(seed)
    passes = [torch.randperm(len(rows), generator=generator) for _ in range(math.ceil(count / len(rows)))]
    return Dataset.from_list(rows).select(torch.cat(passes)[:count].tolist())


def _arguments(stage: AdapterStage, policy: LanguageModel, directory: Path, steps: int, seed: int) -> DPOConfig:
    device = policy.device
    arguments = DPOConfig(
        output_dir=str(directory),
        beta=stage.beta,
        label_smoothing=stage.label_smoothing,
        max_length=None,
        per_device_train_batch_size=stage.batch_size,
        gradient_accumulation_steps=stage.accumulation_steps,
        train_sampling_strategy="sequential",  # see _dataset
        max_steps=steps,
        learning_rate=stage.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=stage.warmup_steps,
        weight_decay=stage.weight_decay,
        adam_beta2=0.99,
        max_grad_norm=1.0,
        gradient_checkpointing=stage.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        bf16=False,  # the policy computes in its own dtype
        fp16=policy.head.weight.dtype == torch.float16 and device.type == "cuda",  # scales the loss
        use_cpu=device.type == "cpu",
        seed=seed,
        save_steps=stage.save_every,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        disable_dropout=stage.lora_dropout == 0,
        dataloader_pin_memory=False,
    )
    arguments._n_gpu = 1  # not the other GPUs that are visible
    return arguments


def _lora_config(stage: AdapterStage, model: Any) -> LoraConfig:
    layers = linear_layers(model, stage.target_modules)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=stage.lora_rank,
        lora_alpha=stage.lora_alpha,  # type: ignore[arg-type]  # PEFT only divides it
        lora_dropout=stage.lora_dropout,
        target_modules=layers,
        fan_in_fan_out=isinstance(model.get_submodule(layers[0]), Conv1D),
    )


def _last_checkpoint(directory: Path) -> Path | None:
    """The newest complete checkpoint: `trainer_state.json` is written last."""
    complete = (path.parent for path in directory.glob("checkpoint-*/trainer_state.json"))
    return max(complete, key=_step, default=None)


def _step(checkpoint: Path | None) -> int:
    return 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])
