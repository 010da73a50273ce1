"""The stages `adapter` and `joint`: LoRA weights by PEFT, and preference heads with them.

    r(answer) = log pi_p(answer) - log pi_ref(answer)     nats; over its tokens when the stage is length-normalised

The reference is always the plain backbone. It reads each distinct answer once, before there are any LoRA weights.

Several processes share the pairs of every batch and average their gradients, so that steps are those of one process.
Each has the whole model.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, get_peft_model
from safetensors import SafetensorError
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

from pad_cli.errors import RecipeError, TrainingError
from pad_cli.models.adapter import Adapter
from pad_cli.models.checkpoint_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, load_tensors, save_tensors
from pad_cli.models.distributed import main_first, wait_for_all
from pad_cli.models.forward import is_out_of_memory
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.scoring import TokenSequence, all_log_probs, answer_log_probs
from pad_cli.recipe import AdapterStage, JointStage
from pad_cli.system.processes import processes
from pad_cli.system.runs import storage_errors, whole_directory
from pad_cli.training.loop import fit, pair_loss
from pad_cli.training.metrics import Split, summarise
from pad_cli.training.pair_table import PairTable

_REFERENCE, _SNAPSHOT, _LAST = "reference.safetensors", "snapshot.safetensors", "last"
# Fused kernels of these read the layer's weight and not the layer, so PEFT refuses it.
_STATE_SPACE, _PAST_THE_LAYER = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"), ("out_proj",)


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
) -> tuple[Adapter, list[dict[str, Any]]]:
    """Train a stage, or go on where a killed run was; the backbone is afterwards as it was before.

    Args:
        head: stage `joint`: maps (N, H) states and (N, K) weights to shifts (N, H), and is trained; else None.
        sequences: the cut (prompt, answer) tokens that pairs name by number.
        weights: (N, K) weights of the preferences of the N training pairs; of no effect without a head.
        validation: splits for `evaluate_every`; their policy accuracy is per token, of the personalised model itself.
        start: PEFT files of an earlier adapter to go on from; None for a new one.
        directory: of this stage alone; holds its snapshots, and may be deleted afterwards.

    Returns the adapter, attached to the backbone and without effect outside `on_rows_from`; and the history, see `fit`.

    Raises:
        RecipeError: a layer is unknown, `start` does not fit the stage, or processes cannot share a batch.
        TrainingError: a loss or gradient is not finite, or memory is too small.
        StorageError: the directory cannot be written.
    """
    everyone, model = processes(), backbone.model
    if stage.batch_size % everyone.count:
        raise RecipeError(
            f"{stage.stage}.batch_size: {everyone.count} processes cannot share {stage.batch_size} pairs evenly.",
            "Make it a multiple of their number.",
        )
    with storage_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    tables = [train, *(table for _, table, _ in validation)]
    lengths = torch.tensor([float(len(answer)) for _, answer in sequences])
    with ExitStack() as stack:
        stack.enter_context(borrowed(model, stage))
        with main_first():
            reference = reference_log_probs(backbone, sequences, tables, directory)
        torch.manual_seed(seed)
        wrapped = get_peft_model(model, lora_config(stage, model))
        lora = lora_parameters(wrapped)
        for parameter in lora.values():
            parameter.data = parameter.data.float()
        if start is not None:
            _read_weights(wrapped, start)
        if stage.gradient_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        groups: list[tuple[dict[str, nn.Parameter], float]] = [(lora, stage.learning_rate)]
        if head is not None and isinstance(stage, JointStage):
            stack.callback(head.to, next(head.parameters()).device)
            stack.callback(head.requires_grad_, False)
            head.to(backbone.device)
            own = {f"preference_head.{name}": parameter for name, parameter in head.named_parameters()}
            groups.append((own, stage.heads_learning_rate))

        def evaluate() -> dict[str, dict[str, Any]]:
            wrapped.eval()
            return {
                name: measure_split(backbone, head, sequences, reference, table, own) for name, table, own in validation
            }

        def loss_of(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            _only_lora_drops_out(wrapped, checkpointed=stage.gradient_checkpointing)
            answers = train.answers(batch)
            read = [sequences[number] for number in answers.tolist()]
            log_probs = answer_log_probs(backbone, read, head, weights[batch].repeat(2, 1))
            rewards = log_probs - reference[answers].to(log_probs.device)
            if stage.length_normalised:
                rewards = rewards / lengths[answers].to(rewards.device)
            return pair_loss(stage, rewards)

        half = backbone.dtype == torch.float16 and backbone.device.type == "cuda"
        scaler = torch.amp.GradScaler(backbone.device.type, enabled=half)
        history = fit(
            stage, groups, loss_of, len(train), seed, directory / _SNAPSHOT, evaluate if validation else None,
            everyone=everyone, scaler=scaler,
        )  # fmt: skip
        if everyone.main:
            with whole_directory(directory / _LAST) as scratch:
                tensors = {name: parameter.detach().cpu().contiguous() for name, parameter in lora.items()}
                save_tensors(tensors, scratch / ADAPTER_WEIGHTS, {"format": "pt"})
                wrapped.peft_config["default"].save_pretrained(str(scratch))
        wait_for_all()
    model.eval().requires_grad_(False)
    return Adapter.load(directory / _LAST, model), history


def measure_split(
    backbone: LanguageModel,
    head: nn.Module | None,
    sequences: Sequence[TokenSequence],
    reference: torch.Tensor,
    table: PairTable,
    weights: torch.Tensor,
) -> dict[str, Any]:
    """Metrics of N pairs under (N, K) weights as the backbone reads now; an answer is read once for every preference.

    `reference` holds the (S,) log-probabilities of all sequences under the plain backbone, nats.
    """
    both = torch.cat([table.chosen, table.rejected])
    inputs = both[:, None] if head is None else torch.cat([both[:, None], weights.repeat(2, 1)], dim=1)
    distinct, where = inputs.double().unique(dim=0, return_inverse=True)
    answers = distinct[:, 0].long()
    read = [sequences[number] for number in answers.tolist()]
    log_probs = all_log_probs(backbone, read, head, distinct[:, 1:].float())
    lengths = torch.tensor([float(len(answer)) for _, answer in read])
    scores = torch.stack([log_probs - reference[answers], log_probs / lengths])[:, where].view(2, 2, -1)
    return summarise(*(scores[:, 0] - scores[:, 1]))  # chosen, rejected


def reference_log_probs(
    backbone: LanguageModel, sequences: Sequence[TokenSequence], tables: Sequence[PairTable], directory: Path
) -> torch.Tensor:
    """Log-probabilities of the sequences that occur in some tables under the plain backbone: (S,), 0 for the others.

    They are read once: an interrupted stage finds them in its `directory`.
    """
    path = directory / _REFERENCE
    try:
        return load_tensors(path)[0]["log_probs"]
    except (OSError, SafetensorError, KeyError):
        pass
    used = torch.cat([part for table in tables for part in (table.chosen, table.rejected)]).unique()
    read = [sequences[number] for number in used.tolist()]
    log_probs = all_log_probs(backbone, read, title="Reading answers with the reference")
    reference = torch.zeros(len(sequences)).index_copy(0, used, log_probs)
    with storage_errors(path):
        scratch = path.with_suffix(".part")
        save_tensors({"log_probs": reference}, scratch)
        scratch.replace(path)
    return reference


def lora_config(stage: AdapterStage | JointStage, model: Any) -> LoraConfig:
    """What PEFT is to add to a model; raises as `linear_layers`."""
    layers = linear_layers(model, stage.target_modules)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=stage.lora_rank,
        lora_alpha=stage.lora_alpha,  # type: ignore[arg-type]  # PEFT only divides it
        lora_dropout=stage.lora_dropout,
        target_modules=layers,
        fan_in_fan_out=isinstance(model.get_submodule(layers[0]), Conv1D),
    )


def linear_layers(model: Any, targets: Sequence[str] | Literal["all-linear"]) -> list[str]:
    """Paths of the linear layers of a causal language model's body that a recipe names; never the unembedding.

    Layers that LoRA cannot adapt count as none: a router, the output of a state-space layer. `targets` are the last
    parts of paths (`q_proj`).

    Raises:
        RecipeError: a name is that of no linear layer in the body.
    """
    body = {id(module) for module in model.get_decoder().modules()} - {id(model.get_output_embeddings())}
    barred = _PAST_THE_LAYER if model.config.model_type in _STATE_SPACE else ()
    layers = [
        path
        for path, module in model.named_modules()
        if id(module) in body and _is_linear(module) and path.rpartition(".")[2] not in barred
    ]
    if targets == "all-linear":
        return layers
    for name in targets:
        if not any(f".{path}".endswith(f".{name}") for path in layers):
            known = ", ".join(sorted({path.rpartition(".")[2] for path in layers}))
            raise RecipeError(f"target_modules: the backbone's body has no linear layer '{name}'.", f"Known: {known}.")
    return [path for path in layers if any(f".{path}".endswith(f".{name}") for name in targets)]


def _is_linear(module: nn.Module) -> bool:
    """Is it a linear layer and no more? Some routers are one that gives several tensors (Llama 4)."""
    of_a_model = type(module).__module__.startswith("transformers.models.")  # others are packed ones
    return isinstance(module, Conv1D) or (
        isinstance(module, nn.Linear) and (not of_a_model or type(module).forward is nn.Linear.forward)
    )


def lora_parameters(model: Any) -> dict[str, nn.Parameter]:
    """The LoRA weights of a PeftModel with one adapter, by their names in PEFT's file."""
    return {
        name.replace(".default.", "."): parameter for name, parameter in model.named_parameters() if ".lora_" in name
    }


def _only_lora_drops_out(model: Any, *, checkpointed: bool) -> None:
    """Of a PeftModel in training mode, leave only what LoRA reads in it.

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


@torch.no_grad()
def _read_weights(model: Any, directory: Path) -> None:
    """Start from PEFT's files of an earlier stage; raises RecipeError where they do not fit."""
    tensors, _ = load_tensors(directory / ADAPTER_WEIGHTS)
    saved = LoraConfig.from_pretrained(str(directory))
    own, config = lora_parameters(model), model.peft_config["default"]
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in tensors.items()} or (
        config.lora_alpha != saved.lora_alpha
    ):
        raise RecipeError(
            f"The adapter in '{directory / ADAPTER_CONFIG}' has other LoRA weights than the stage that continues it.",
            "Give both stages the same lora_rank, lora_alpha and target_modules.",
        )
    for name, parameter in own.items():
        parameter.copy_(tensors[name])


@contextmanager
def unchanged(*objects: Any) -> Iterator[None]:
    """Inside, anything may happen to the attributes of some objects; afterwards they are what they were.

    Dictionaries among them (a module's children, parameters, hooks) get their entries back, and stay the same object.
    """
    before = [
        (vars(one), dict(vars(one)), [(table, table.copy()) for table in vars(one).values() if isinstance(table, dict)])
        for one in {id(one): one for one in objects}.values()
    ]
    try:
        yield
    finally:
        for attributes, values, tables in before:
            attributes.clear()
            attributes.update(values)
            for table, entries in tables:
                table.clear()
                table.update(entries)


@contextmanager
def borrowed(model: Any, stage: AdapterStage | JointStage) -> Iterator[None]:
    """Inside, a model may be trained; afterwards it is what it was, and so is torch's random state.

    Raises:
        TrainingError: memory is too small, or the 4-bit weights pass no gradients on.
    """
    # On a CPU bitsandbytes repacks 4-bit weights when they are read without gradients. Repacked ones pass no gradients
    # on, and its way back does not give the same weights (0.50), so it is kept from it.
    packed = [module for module in model.modules() if hasattr(module, "support_avx512bf16_for_cpu")]
    if any(getattr(module.weight.quant_state, "packing_format_for_cpu", False) for module in packed):
        raise TrainingError(
            "The backbone's 4-bit weights were already used for inference on this CPU and now pass no gradients.",
            "Train LoRA weights before other stages, on a GPU, or with quantization: 8bit.",
        )
    configs = (model.config, model.config.get_text_config(decoder=True), model.generation_config)
    with (
        unchanged(*model.modules(), *configs),
        warnings.catch_warnings(action="ignore"),
        torch.random.fork_rng(devices=[]),
    ):
        for module in packed:
            module.support_avx512bf16_for_cpu = False
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise TrainingError(
                f"Training {stage.stage}: memory is too small for {stage.batch_size} pairs at once.",
                "Halve batch_size and double accumulation_steps, set gradient_checkpointing: true, or load the "
                "backbone with quantization: 4bit.",
            ) from error
