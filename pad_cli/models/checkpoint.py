"""Saving and loading reward models; `checkpoint_files.py` names the files of a checkpoint.

A directory without `pad_config.json` but with `value_head.safetensors` is in the form that PAD's authors released: a
language model trained to read preferences in its prompt, and one dense head beside it. Loading refuses what would
silently be wrong: missing heads, another backbone or tokenizer, a newer format.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from pad_cli.errors import CheckpointError
from pad_cli.models import checkpoint_files as files
from pad_cli.models.adapter import Adapter
from pad_cli.models.dtype import dtype_name
from pad_cli.models.heads import PreferenceEncoder, PreferenceHeads
from pad_cli.models.language_model import LanguageModel, WeightSample, load_language_model, read_sample
from pad_cli.models.reward_model import PersonalizedRewardModel, PromptRewardModel, RewardModel
from pad_cli.recipe import ModelSettings
from pad_cli.registry import resolve_model
from pad_cli.system.runs import write_json

_WEIGHT, _BIAS = "v_head.summary.weight", "v_head.summary.bias"  # the authors' names of the dense head's tensors


def save_reward_model(model: RewardModel, directory: Path, settings: ModelSettings) -> None:
    """Write a reward model into an existing directory; `settings` is how its backbone is found again."""
    heads = encoder = None
    if isinstance(model, PromptRewardModel):
        dense = {_WEIGHT: model.head.weight, _BIAS: model.head.bias}
        save_file({name: each.detach().float().cpu() for name, each in dense.items()}, directory / files.VALUE_HEAD)
    else:
        heads, encoder = model.heads, model.encoder
        tensors = {name: each.detach().cpu() for name, each in heads.named_parameters()}
        files.save_tensors(tensors, directory / files.HEADS)
    if encoder is not None:
        tensors = {name: each.cpu().contiguous() for name, each in encoder.state_dict().items()}
        files.save_tensors(tensors, directory / files.ENCODER)
    if model.adapter is not None:
        model.adapter.save(directory)
    model.backbone.sample.save(directory / files.SAMPLE)
    model.backbone.tokenizer.save_pretrained(directory)
    header = {
        **model.details,
        "format_version": files.FORMAT_VERSION,
        "backbone": settings.model,
        "backbone_revision": settings.revision,
        "backbone_quantization": settings.quantization,
        "backbone_dtype": dtype_name(model.backbone.dtype),
        "backbone_fingerprint": model.backbone.fingerprint,
        "hidden_size": model.backbone.hidden_size,
        "vocabulary_size": model.backbone.vocabulary_size,
        "tokenizer_hash": model.backbone.vocabulary,
        "conditioning": model.conditioning,
        "principles": list(model.principles),
        "rank": 0 if heads is None else heads.rank,
        "adapter": model.adapter is not None,
        "encoder_width": None if encoder is None else encoder.network[1].out_features,
        "encoder_texts": None if encoder is None else len(encoder.known),
        "calibration": model.calibration,
    }
    write_json(directory / files.CONFIG, header)


def load_reward_model(
    location: str, *, backbone: LanguageModel | None = None, dtype: str = "auto", device: str = "auto"
) -> RewardModel:
    """Load a reward model.

    Args:
        location: its directory, a registered source (`embedded/reward-model`), or its id on the hub (`owner/name`,
            `owner/name@revision`), also of one in the form that the paper's authors released.
        backbone: an already loaded model to reuse when it is this reward model's backbone (usually the policy).
        dtype: of a backbone that has to be loaded; it need not be the one that it was trained with.
        device: of that backbone.

    Raises:
        CheckpointError: something is missing, damaged or does not fit.
        ModelLoadError: the backbone cannot be loaded.
    """
    location = files.fetch_checkpoint(resolve_model(location))
    directory = Path(location)
    if not (directory / files.CONFIG).exists() and (head_path := files.find_value_head(location)) is not None:
        released = ModelSettings.model_validate({"model": location, "dtype": dtype, "device": device})
        backbone = load_language_model(released)
        return PromptRewardModel(backbone, _read_dense_head(head_path, backbone))
    header = files.read_header(directory)
    sample = read_sample(directory / files.SAMPLE)
    if backbone is None or not _is_backbone(header, sample, backbone):
        source = {"model": header.backbone, "revision": header.backbone_revision}
        content = {**source, "quantization": header.backbone_quantization, "dtype": dtype, "device": device}
        backbone = load_language_model(files.validated(ModelSettings, content, directory / files.CONFIG))
        _check_backbone(directory, header, sample, backbone)
    if backbone.fingerprint != header.backbone_fingerprint:  # it was rounded; what names the fingerprint stays valid
        backbone = replace(backbone, fingerprint=header.backbone_fingerprint, sample=sample or backbone.sample)
    adapter = Adapter.load(directory, backbone.model) if header.adapter else None
    if header.conditioning == "prompt":
        head = _read_dense_head(directory / files.VALUE_HEAD, backbone)
        return PromptRewardModel(backbone, head, header.calibration, adapter, header.content)
    heads = _read_heads(directory / files.HEADS, header).to(backbone.device).eval().requires_grad_(False)
    encoder = None if header.encoder_width is None else _read_encoder(directory / files.ENCODER, header)
    return PersonalizedRewardModel(backbone, heads, encoder, header.calibration, header.content, adapter)


def _check_backbone(
    directory: Path, header: files.CheckpointHeader, sample: WeightSample | None, backbone: LanguageModel
) -> None:
    if backbone.hidden_size != header.hidden_size:
        difference = f" of hidden size {header.hidden_size}, but the one found there now has {backbone.hidden_size}"
    elif backbone.vocabulary != header.tokenizer_hash:
        difference = ", whose tokenizer is not the one found there now"
    elif not _is_backbone(header, sample, backbone):
        difference = ", but its weights have changed since"
    else:
        return
    raise CheckpointError(
        f"'{directory}' was trained on '{header.backbone}'{difference}.",
        "Put the original backbone back, or train again.",
    )


def _is_backbone(header: files.CheckpointHeader, sample: WeightSample | None, model: LanguageModel) -> bool:
    """Is this the model that a checkpoint was trained on, in whatever dtype?

    A checkpoint of version 0.1 has no sample but a fingerprint, which is the same in float32 and bfloat16 only.
    """
    if sample is not None:
        return sample.agrees(model.sample)
    return header.backbone_fingerprint in (model.fingerprint, model.sample.fingerprint(torch.float16))


def _read_heads(path: Path, header: files.CheckpointHeader) -> PreferenceHeads:
    files.tensor_shapes(path, header.head_shapes)
    heads = PreferenceHeads(header.principles, header.hidden_size, header.rank)
    heads.load_state_dict(files.read_tensors(path))
    return heads


def _read_encoder(path: Path, header: files.CheckpointHeader) -> PreferenceEncoder:
    assert header.encoder_width is not None
    assert header.encoder_texts is not None
    count, sizes = len(header.principles), (header.hidden_size, header.encoder_width)
    with torch.device("meta"):  # takes no memory, whatever sizes the header claims
        claimed = PreferenceEncoder(*sizes, count, texts=header.encoder_texts)
    files.tensor_shapes(path, {name: tuple(tensor.shape) for name, tensor in claimed.state_dict().items()})
    tensors = files.read_tensors(path)
    owners, spread = tensors["owners"], tensors["spread"]
    if not ((owners >= -1) & (owners < count)).all() or not (spread > 0).all():
        raise files.damaged(path, "it names principles that do not exist, or no spread")
    encoder = PreferenceEncoder(*sizes, count, texts=header.encoder_texts)
    encoder.load_state_dict(tensors)
    return encoder.eval().requires_grad_(False)


def _read_dense_head(path: Path, backbone: LanguageModel) -> nn.Linear:
    """The head in float32, whatever dtype it is stored in, on the backbone's device."""
    size = backbone.hidden_size
    files.tensor_shapes(path, {_WEIGHT: (size, size), _BIAS: (size,)})
    tensors = files.read_tensors(path)
    head = nn.Linear(size, size, device="meta")  # takes no memory and draws no random numbers
    head.load_state_dict({"weight": tensors[_WEIGHT].float(), "bias": tensors[_BIAS].float()}, assign=True)
    return head.eval().requires_grad_(False).to(backbone.device)
