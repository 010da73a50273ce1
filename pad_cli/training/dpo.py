"""Plain DPO with LoRA by TRL's trainer (Rafailov et al. 2023, arXiv 2305.18290): how trained competitors learn."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from trl import DPOConfig, DPOTrainer

from pad_cli.errors import RecipeError, TrainingError
from pad_cli.models.adapter import Adapter
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.scoring import TokenSequence
from pad_cli.recipe import AdapterStage
from pad_cli.system.progress import Bar, bar
from pad_cli.system.runs import storage_errors
from pad_cli.training.loop import order_of_pairs, steps_of
from pad_cli.training.lora import borrowed, lora_config, lora_parameters
from pad_cli.training.pair_table import PairTable


def train_dpo(
    stage: AdapterStage,
    policy: LanguageModel,
    sequences: Sequence[TokenSequence],
    pairs: PairTable,
    *,
    directory: Path,
    seed: int,
) -> Adapter:
    """Train LoRA weights of a policy, or go on from the last checkpoint; the policy is afterwards as it was before.

    `pairs` name their cut (prompt, answer) `sequences` by number. `directory` is of this training alone; it holds the
    checkpoints, and may be deleted afterwards. Returns the adapter, attached to the policy and without effect outside
    `on_rows_from`.

    Raises:
        RecipeError: a layer is unknown, or DPO has no such setting.
        TrainingError: the weights are not finite, or memory is too small.
        StorageError: the directory cannot be written.
    """
    if stage.anchor or stage.label_smoothing:
        raise RecipeError("TRL's DPO has neither `anchor` nor `label_smoothing`.", "Leave them at 0.")
    model = policy.model
    steps = steps_of(stage, len(pairs))
    order = order_of_pairs(len(pairs), steps * stage.batch_size * stage.accumulation_steps, seed)
    chosen, rejected = ([sequences[number] for number in side.tolist()] for side in (pairs.chosen, pairs.rejected))
    rows = {
        "prompt_ids": [prompt for prompt, _ in chosen],
        "chosen_ids": [answer for _, answer in chosen],
        "rejected_ids": [answer for _, answer in rejected],
    }
    with ExitStack() as stack:
        stack.enter_context(borrowed(model, stage))
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.WARNING)  # every library used here says something at each run
        stack.enter_context(storage_errors(directory))
        trainer = _Trainer(
            model=model,
            args=_config(stage, policy, steps, directory, seed),
            train_dataset=Dataset.from_dict(rows).select(order.tolist()),
            processing_class=policy.tokenizer,
            peft_config=lora_config(stage, model),
        )
        trainer.remove_callback(PrinterCallback)
        parameters = lora_parameters(trainer.model).values()
        for parameter in parameters:
            parameter.data = parameter.data.float()  # TRL halves those of a quantised model
        trainer.add_callback(_Progress(stack.enter_context(bar("Training by DPO", total=steps))))
        trainer.train(resume_from_checkpoint=_last_whole(directory))
        if not all(parameter.isfinite().all() for parameter in parameters):
            raise TrainingError("Training by DPO: the weights are not finite.", "Lower the learning rate.")
        trainer.model.save_pretrained(str(directory / "last"), save_embedding_layers=False)
    model.eval().requires_grad_(False)
    return Adapter.load(directory / "last", model)


def _config(stage: AdapterStage, policy: LanguageModel, steps: int, directory: Path, seed: int) -> DPOConfig:
    device = policy.device
    settings = DPOConfig(
        output_dir=str(directory),
        per_device_train_batch_size=stage.batch_size,
        gradient_accumulation_steps=stage.accumulation_steps,
        max_steps=steps,
        learning_rate=stage.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=stage.warmup_steps,
        weight_decay=stage.weight_decay,
        adam_beta2=0.99,
        beta=stage.beta,
        loss_type=["sigmoid_norm" if stage.length_normalised else "sigmoid"],
        max_length=None,  # tokens are cut already
        train_sampling_strategy="sequential",  # rows are in their random order already
        gradient_checkpointing=stage.gradient_checkpointing,
        disable_dropout=not stage.lora_dropout,
        bf16=False,  # the policy computes in its own dtype
        fp16=policy.dtype == torch.float16 and device.type == "cuda",  # scales the loss
        use_cpu=device.type == "cpu",
        seed=seed,
        save_steps=stage.save_every,
        save_total_limit=2,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    settings._n_gpu = 1  # other GPUs that are visible are not ours
    return settings


class _Trainer(DPOTrainer):  # type: ignore[misc]  # mypy does not follow trl
    """TRL's trainer on pairs that are tokenised already; sends nothing."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _send_telemetry(self) -> None:
        pass

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None in a checkpoint that is only there to go on from."""

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        try:
            super()._save_checkpoint(*args, **kwargs)
        except RuntimeError as error:  # what torch.save makes of a full disk
            raise OSError("a checkpoint cannot be written whole, the disk may be full") from error


class _Progress(TrainerCallback):  # type: ignore[misc]  # nor transformers
    def __init__(self, progress: Bar) -> None:
        self._progress = progress

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._progress.skip(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._progress.advance()


def _last_whole(directory: Path) -> str | None:
    """The last checkpoint that was written to its end, which is the trainer's state; those after it are deleted."""
    for checkpoint in sorted(directory.glob("checkpoint-*"), key=lambda path: -int(path.name.rpartition("-")[2])):
        try:
            json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
            return str(checkpoint)
        except (OSError, ValueError):
            shutil.rmtree(checkpoint, ignore_errors=True)
    return None
