"""The stages `adapter` and `joint`: LoRA weights, and preference heads with them, by TRL's DPO trainer.

TRL gives the loop, accumulation, checkpoints and trackers. Ours are the loss (`equation.py`), what is read
(`models/scoring.py`) and the reference, which is always the plain backbone: its log-probabilities are computed once,
before any LoRA weights exist, so TRL's own choice of a reference (a frozen copy of an earlier adapter) never matters.

Several processes share the pairs of every batch and average their gradients, so that steps are those of one process.
Each has the whole model, or its part of a sharded one; then they read in step, and LoRA weights stay whole. Nothing is
wrapped: the loss does not go through the model's own forward.

The heads shift the states of the body here, where the loss sees them; hung on `lm_head` they would never be trained.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from torch import nn
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, TrainerCallback
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D
from trl import DPOConfig, DPOTrainer

from pad_cli.equation import preference_loss
from pad_cli.errors import RecipeError
from pad_cli.models.adapter import Adapter
from pad_cli.models.distributed import main_first, main_reads_first, wait_for_all
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.scoring import TokenSequence
from pad_cli.recipe import AdapterStage, JointStage
from pad_cli.system.processes import processes
from pad_cli.system.progress import Bar, bar
from pad_cli.system.runs import storage_errors, whole_directory
from pad_cli.training.finite import check_finite
from pad_cli.training.lesson import METRICS, Lesson, Split, order_of_pairs, reference_log_probs
from pad_cli.training.lora import (
    keep_last,
    linear_layers,
    lora_parameters,
    newest_whole,
    read_weights,
    unchanged,
    write_weights,
)
from pad_cli.training.pair_table import PairTable
from pad_cli.training.surroundings import check_trackers, keep_differentiable, memory_explained, quiet

_BEST, _LAST = "best", "last"
_SCORE = "eval_policy_accuracy"
_ZERO = torch.zeros(())
_POINTS = 40  # of the history, at least
_KEPT = 2  # checkpoints: the last one may be damaged


def train_lora(
    stage: AdapterStage | JointStage,
    backbone: LanguageModel,
    head: nn.Module | None,
    sequences: Sequence[TokenSequence],
    train: PairTable,
    weights: torch.Tensor,
    *,
    validation: Sequence[Split] = (),
    start: Path | None = None,
    directory: Path,
    seed: int,
    report_to: Sequence[str] = (),
) -> tuple[Adapter, list[dict[str, Any]]]:
    """Train a stage, or go on where a killed run was; the backbone is afterwards as it was before.

    Args:
        stage: `adapter` or `joint`.
        backbone: the language model that gets LoRA weights meanwhile.
        head: stage `joint`: maps (N, H) states and (N, K) weights to shifts (N, H), and is trained; else None.
        sequences: the cut (prompt, answer) tokens that pairs name by number.
        train: N pairs.
        weights: (N, K) weights of their preferences; of no effect without a head.
        validation: splits that are measured every `evaluate_every` steps; the weights with the best mean policy
            accuracy (of the personalised model itself, per token) are kept.
        start: PEFT files of an earlier adapter to go on from; None for a new one.
        directory: of this stage alone; holds its checkpoints, and may be deleted afterwards.
        seed: of everything random.
        report_to: trackers that transformers supports.

    Returns:
        The adapter, attached to the backbone and without effect outside `on_rows_from`; and the history: for some
        steps the mean loss and pair accuracy of the batches since the one before, and of measured steps the `splits`'
        metrics.

    Raises:
        RecipeError: a layer or tracker is unknown, `start` does not fit the stage, or processes cannot share a batch.
        TrainingError: a loss or gradient is not finite, or memory is too small.
        StorageError: the directory cannot be written.
    """
    check_trackers(report_to)
    if stage.batch_size % processes().count:
        raise RecipeError(
            f"{stage.stage}.batch_size: {processes().count} processes cannot share {stage.batch_size} pairs evenly.",
            "Make it a multiple of their number.",
        )
    with storage_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    model = backbone.model
    text_config = model.config.get_text_config(decoder=True)
    with ExitStack() as stack:
        stack.enter_context(memory_explained(stage))
        stack.enter_context(unchanged(*model.modules(), model.config, text_config, model.generation_config))
        stack.enter_context(quiet())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        keep_differentiable(model)
        tables = [train, *(table for _, table, _ in validation)]
        with main_reads_first(model):
            reference = reference_log_probs(backbone, sequences, tables, directory)
        lesson = Lesson(stage, backbone, head, sequences, train, weights, tuple(validation), reference, directory)
        if head is not None:
            stack.callback(head.to, next(head.parameters()).device)
            stack.callback(head.requires_grad_, False)
            head.to(backbone.device).requires_grad_(True)
        history = _train(lesson, start, seed, report_to)
    model.eval().requires_grad_(False)
    return Adapter.load(directory / _LAST, model), history


class _Trainer(DPOTrainer):  # type: ignore[misc]  # mypy does not follow trl
    """TRL's trainer with our loss, our evaluation and our files; everything stays on the backbone's device."""

    control: Any
    optimizer: Any

    def __init__(self, lesson: Lesson, seed: int, report_to: Sequence[str]) -> None:
        self.lesson = lesson
        self.status = ""
        self.batches: list[tuple[torch.Tensor, torch.Tensor]] = []  # of this step: pairs, and their margins
        order = order_of_pairs(len(lesson.train), lesson.steps * lesson.pairs_in_a_step, seed)
        super().__init__(
            model=lesson.backbone.model,
            args=_arguments(lesson, seed, report_to),
            data_collator=_numbers,
            train_dataset=Dataset.from_dict({"pair": order.tolist()}),
            processing_class=lesson.backbone.tokenizer,
            peft_config=_lora_config(lesson.stage, lesson.backbone.model),
        )
        for parameter in lora_parameters(self.model).values():
            parameter.data = parameter.data.float()  # TRL halves those of a quantised model
        if lesson.head is not None:
            self.model.add_module("preference_head", lesson.head)
        self.remove_callback(PrinterCallback)

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, **_: Any
    ) -> torch.Tensor:
        """The mean loss of a batch of pairs."""
        stage = self.lesson.stage
        _only_lora_drops_out(self.model, checkpointed=stage.gradient_checkpointing)
        chosen, rejected = self.lesson.rewards(inputs["pair"].cpu())
        loss = preference_loss(
            chosen, rejected, beta=stage.beta, anchor=stage.anchor, label_smoothing=stage.label_smoothing
        )
        self.batches.append((inputs["pair"].cpu(), (chosen - rejected).detach().cpu()))
        self.check_finite(loss=loss.detach())
        ranked = (chosen > rejected).float().mean()
        self._metrics["train"]["pair_accuracy"].append(self.accelerator.reduce(ranked, "mean").item())
        self.status = f"loss {loss.item():.3f}"
        return loss.to(self.args.device)

    def check_finite(self, *, loss: torch.Tensor = _ZERO, norm: torch.Tensor = _ZERO) -> None:
        """Raises TrainingError where a loss, or the norm of the step's gradients, is not finite."""
        step = f"{self.lesson.name}, step {self.state.global_step + 1} of {self.lesson.steps}"
        pairs, margins = (torch.cat(parts) for parts in zip(*self.batches, strict=True))
        check_finite(step, loss, norm, pairs, margins, self.lesson.directory)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """One forward and backward pass; behind the last of an optimiser step, gradients are averaged."""
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        if self.accelerator.num_processes > 1 and self.accelerator.sync_gradients:
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter.grad = self.accelerator.reduce(parameter.grad, "mean")
        return loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measure every validation split; keep the best weights, and stop when they have been the best for long."""
        self.model.eval()
        splits = {name: self.lesson.measure(table, weights) for name, table, weights in self.lesson.validation}
        metrics = {_flat(name, key): value for name, split in splits.items() for key, value in split.items()}
        metrics[_SCORE] = sum(split["policy_accuracy"] for split in splits.values()) / len(splits)
        self.log(metrics)
        scores = _scores(self.state.log_history)
        if scores[-1] > max(scores[:-1], default=-1.0):
            if processes().main:  # all have the same
                with whole_directory(self.lesson.directory / _BEST) as scratch:
                    write_weights(self.model, self.lesson.head, scratch)
        elif self.lesson.stage.patience and len(scores) - 1 - scores.index(max(scores)) >= self.lesson.stage.patience:
            self.control.should_training_stop = True
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW; the heads have their own learning rate."""
        if self.optimizer is None:
            stage = self.lesson.stage
            groups: list[dict[str, Any]] = [
                {"params": list(lora_parameters(self.model).values()), "lr": stage.learning_rate}
            ]
            if self.lesson.head is not None and isinstance(stage, JointStage):
                groups.append({"params": list(self.lesson.head.parameters()), "lr": stage.heads_learning_rate})
            self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=stage.weight_decay)
        optimiser: torch.optim.Optimizer = self.optimizer
        return optimiser

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        self.accelerator.device_placement = False
        self.accelerator.prepare_model = functools.partial(self.accelerator.prepare_model, evaluation_mode=True)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None in a checkpoint that is only there to go on from."""

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted."""
        return 0

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        """As it is: numbers of pairs, whose tokens we have."""
        return dataset

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> SequentialSampler:
        """The data set is in its random order already, for all of the training: full batches, nothing to restore."""
        return SequentialSampler(train_dataset or self.train_dataset)

    def _move_model_to_device(self, model: Any, device: torch.device) -> None:
        """It stays where it is."""

    def _send_telemetry(self) -> None:
        """Nothing is sent."""

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        try:
            super()._save_checkpoint(*args, **kwargs)
        except RuntimeError as error:  # what torch.save makes of a full disk
            raise OSError("a checkpoint cannot be written whole, the disk may be full") from error
        if processes().main:
            keep_last(self.lesson.directory, _KEPT)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        write_weights(self.model, self.lesson.head, folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        read_weights(self.model, self.lesson.head, Path(resume_from_checkpoint))


class _Watch(TrainerCallback):  # type: ignore[misc]  # nor transformers
    """Shows progress, and says when to measure; the last step is always logged and measured."""

    def __init__(self, trainer: _Trainer, progress: Bar) -> None:
        self._trainer, self._progress = trainer, progress

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._progress.skip(state.global_step)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trainer.batches = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not args.fp16:  # there a step that overflows is left out
            gradients = [each.grad for each in self._trainer.model.parameters() if each.grad is not None]
            self._trainer.check_finite(norm=torch.nn.utils.get_total_norm(gradients))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        last, every = state.global_step >= state.max_steps, self._trainer.lesson.measured_every
        control.should_evaluate = every is not None and (last or state.global_step % every == 0)
        control.should_log = control.should_log or control.should_evaluate or last
        self._progress.advance(status=self._trainer.status)


def _train(lesson: Lesson, start: Path | None, seed: int, report_to: Sequence[str]) -> list[dict[str, Any]]:
    """Train, leave the kept weights in `_LAST`, and return the history."""
    trainer = _Trainer(lesson, seed, report_to)
    if start is not None:
        read_weights(trainer.model, None, start)
    with main_first():
        checkpoint = newest_whole(lesson.directory, with_head=lesson.head is not None)
    with bar(lesson.name, total=lesson.steps) as progress:
        trainer.add_callback(_Watch(trainer, progress))
        with storage_errors(lesson.directory):
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    wait_for_all()
    if _scores(trainer.state.log_history):
        read_weights(trainer.model, lesson.head, lesson.directory / _BEST)
    if processes().main:
        with whole_directory(lesson.directory / _LAST) as scratch:
            write_weights(trainer.model, None, scratch)
    wait_for_all()
    return _history(trainer.state.log_history, [name for name, _, _ in lesson.validation])


def _arguments(lesson: Lesson, seed: int, report_to: Sequence[str]) -> DPOConfig:
    stage, device = lesson.stage, lesson.backbone.device
    arguments = DPOConfig(
        output_dir=str(lesson.directory),
        per_device_train_batch_size=stage.batch_size // processes().count,
        gradient_accumulation_steps=stage.accumulation_steps,
        max_steps=lesson.steps,
        learning_rate=stage.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=stage.warmup_steps,
        max_grad_norm=1.0,
        gradient_checkpointing=stage.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        bf16=False,  # the backbone computes in its own format
        fp16=lesson.backbone.head.weight.dtype == torch.float16 and device.type == "cuda",  # scales the loss
        use_cpu=device.type == "cpu",
        seed=seed,
        save_steps=stage.save_every,
        save_total_limit=None,  # see _save_checkpoint
        logging_steps=max(1, lesson.steps // _POINTS),
        report_to=list(report_to) or "none",
        disable_tqdm=True,
        disable_dropout=False,  # TRL would take that of the LoRA weights too
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    arguments._n_gpu = 1  # other GPUs that are visible are not ours
    return arguments


def _lora_config(stage: AdapterStage | JointStage, model: Any) -> LoraConfig:
    layers = linear_layers(model, stage.target_modules)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=stage.lora_rank,
        lora_alpha=stage.lora_alpha,  # type: ignore[arg-type]  # PEFT only divides it
        lora_dropout=stage.lora_dropout,
        target_modules=layers,
        fan_in_fan_out=isinstance(model.get_submodule(layers[0]), Conv1D),
    )


def _only_lora_drops_out(model: Any, *, checkpointed: bool) -> None:
    """Of a PeftModel in training mode, leave only what LoRA reads and the preference head in it.

    The reference reads without dropout, so weights that are zero earn no reward only if the backbone does as well.
    Gradient checkpointing needs the mode in decoder layers, which may have dropout of their own (OPT).
    """
    for module in model.get_base_model().eval().modules():
        if hasattr(module, "lora_dropout"):
            module.lora_dropout.train()
        elif checkpointed and isinstance(module, GradientCheckpointingLayer):
            module.training = True
            rates = [name for name, value in vars(module).items() if "dropout" in name and isinstance(value, float)]
            vars(module).update(dict.fromkeys(rates, 0.0))


def _numbers(rows: list[dict[str, int]]) -> dict[str, torch.Tensor]:
    return {"pair": torch.tensor([row["pair"] for row in rows])}


def _flat(split: str, metric: str) -> str:
    return f"eval_{split}_{metric}"


def _scores(log: Sequence[dict[str, Any]]) -> list[float]:
    """Mean policy accuracy at every measurement so far."""
    return [row[_SCORE] for row in log if _SCORE in row]


def _history(log: Sequence[dict[str, Any]], splits: Sequence[str]) -> list[dict[str, Any]]:
    """The log of a trainer as points by step."""
    points: dict[int, dict[str, Any]] = {}
    for row in log:
        point = points.setdefault(row["step"], {"step": row["step"]})
        if "loss" in row:
            point |= {key: row[key] for key in ("loss", "pair_accuracy")}
        for name in splits if _SCORE in row else ():
            point.setdefault("splits", {})[name] = {metric: row[_flat(name, metric)] for metric in METRICS}
    return [point for point in points.values() if len(point) > 1]
