"""From a name to a transformers model and its tokenizer, in every form that users have models.

A name is a directory, a hub id, or a GGUF file: in a directory, or `owner/name/file.gguf` on the hub. GGUF weights are
unpacked into a plain model. With bitsandbytes, the body's linear layers are packed into 4 or 8 bits while loading; the
embeddings stay as they are. A model is on one device, or spread over several by accelerate.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from pad_cli.errors import ModelLoadError, PadError, closest, did_you_mean
from pad_cli.models.dtype import choose_dtype, dtype_name
from pad_cli.recipe import ModelSettings
from pad_cli.registry import MODEL_SOURCES
from pad_cli.system.offline import hub_hint
from pad_cli.system.processes import processes
from pad_cli.system.progress import note, stage
from pad_cli.system.runs import home

_SMALL = 2**28  # bytes of weights
_OFFLOADED = "disk"  # accelerate's name for the place of weights that are read whenever they are used


def load_pretrained(settings: ModelSettings, location: str) -> tuple[Any, Any]:
    """Load a model, frozen and in evaluation mode, and its tokenizer.

    `location` is `settings.model`, resolved: a directory, a GGUF file or a hub id.

    Raises:
        ModelLoadError: it cannot be loaded, a device or package is missing, or the settings do not fit it.
    """
    try:
        with stage(f"Loading {settings.model}"), quiet_transformers():
            return _load(settings, location)
    except PadError:
        raise
    except Exception as error:  # a damaged file may raise anything, a tokenizer's a bare Exception
        raise _load_error(settings, location, error) from error


def _load(settings: ModelSettings, location: str) -> tuple[Any, Any]:
    source = _find_source(settings, location)
    device = chosen_device(settings.device)
    tokenizer = AutoTokenizer.from_pretrained(**source)
    options = _options(settings, source, device)
    without_bar = _without_gguf_bar() if "gguf_file" in source else contextlib.nullcontext()
    with _without_meta_device(location), without_bar:
        model, report = AutoModelForCausalLM.from_pretrained(**source, **options, output_loading_info=True)
    if missing := report["missing_keys"]:
        raise ModelLoadError(
            f"'{settings.model}' lacks {len(missing)} of its weights, for example {min(missing)}.",
            "Download it again, with all its shards in one directory; a GGUF file must be complete.",
        )
    if "gguf_file" in source:
        _drop_tokens_from(model.get_input_embeddings().weight.shape[0], tokenizer)
    if "device_map" not in options:
        model = model.to(device)
    return model.eval().requires_grad_(False), tokenizer


def _find_source(settings: ModelSettings, location: str) -> dict[str, Any]:
    """Where transformers finds a directory, a GGUF file or a hub id: arguments of every `from_pretrained`."""
    source = {"revision": settings.revision, "trust_remote_code": False}  # None would ask on the terminal
    path = Path(location)
    local = location.startswith((".", "/", "~")) or path.exists()
    if not location.endswith(".gguf"):
        if path.is_dir() or (not local and location.count("/") == 1):
            return {**source, "pretrained_model_name_or_path": location}
        raise ModelLoadError(f"No model directory '{location}'.", "Name a directory, or a hub id like owner/model.")
    if path.is_file():
        # A bare name would be looked for in the working directory first.
        return {**source, "pretrained_model_name_or_path": str(path.parent), "gguf_file": str(path.resolve())}
    if local or path.parent.is_dir() or location.count("/") != 2:
        similar = did_you_mean(path.name, (file.name for file in path.parent.glob("*.gguf")))
        hint = similar or "Name a file, or owner/model/file.gguf on the hub."
        raise ModelLoadError(f"No GGUF file '{location}'.", hint)
    if Path(path.name).exists():
        raise ModelLoadError(
            f"'{path.name}' in the working directory would be read in place of '{location}'.",
            f"To load it, write ./{path.name}; otherwise change to another working directory.",
        )
    repository = location.removesuffix(f"/{path.name}")
    return {**source, "pretrained_model_name_or_path": repository, "gguf_file": path.name}


def _options(settings: ModelSettings, source: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """What decides numbers and devices: further arguments of the model's `from_pretrained`."""
    for place in settings.device_map.values() if isinstance(settings.device_map, dict) else ():
        if place != _OFFLOADED:
            chosen_device(place)
    auto = settings.dtype == "auto"
    dtype: Any = _auto_dtype(settings, source, device) if auto else getattr(torch, settings.dtype)
    named = {"dtype": dtype, "attn_implementation": settings.attention, "device_map": settings.device_map}
    options: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    if "gguf_file" in source:
        if hasattr(transformers, "GgufConfig"):  # later versions leave some architectures packed
            options["quantization_config"] = transformers.GgufConfig(dequantize=True)
        return options
    options["use_safetensors"] = True  # pickles run code
    if settings.quantization is not None:
        options.setdefault("device_map", {"": device})
        options["quantization_config"] = (
            BitsAndBytesConfig(load_in_8bit=True)
            if settings.quantization == "8bit"
            else BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
        )
    return options


def _auto_dtype(settings: ModelSettings, source: dict[str, Any], device: torch.device) -> torch.dtype | str:
    """What `dtype: auto` is for these weights here; "auto" leaves it to the checkpoint's own quantization."""
    if "gguf_file" in source:
        return torch.float32
    config = AutoConfig.from_pretrained(**source)
    if getattr(config, "quantization_config", None) is not None:
        return "auto"
    own = own_dtype(config) or torch.float32
    if settings.device_map is not None and torch.cuda.is_available():
        device = torch.device("cuda", torch.cuda.current_device())  # what is left on the CPU has to follow
    dtype, reason = choose_dtype(own, device)
    if reason:
        note(f"{settings.model}: {dtype_name(own)}, loaded as {dtype_name(dtype)}: {reason}.")
    return dtype


def own_dtype(config: Any) -> torch.dtype | None:
    """The dtype of a checkpoint's weights, as its configuration tells it; None where that says nothing."""
    dtype = config.dtype or config.get_text_config(decoder=True).dtype
    return dtype if isinstance(dtype, torch.dtype) else None


def _drop_tokens_from(size: int, tokenizer: Any) -> None:
    """Drop the added tokens for which the model has no embedding.

    Where a GGUF file of bytes has no token `<|endoftext|>`, transformers numbers one after the file's own tokens: the
    model cannot read it, and the vocabulary is no longer that of the model which the file was made from.
    """
    if len(tokenizer) <= size:
        return
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["id"] < size]
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(state))


def _load_error(settings: ModelSettings, location: str, error: Exception) -> ModelLoadError:
    """An error of transformers, accelerate or bitsandbytes, with what to do about it."""
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    if location != settings.model:  # of a registered source
        derived = Path(location).is_relative_to(home())
        hint = f"Delete {location} and run again." if derived else f"Reinstall the package that has {location}."
    elif isinstance(error, ImportError):
        hint = 'Install what it names, for example: pip install "pad-cli[gguf,quantized]"'
    else:
        similar = closest(settings.model.partition("/")[0], MODEL_SOURCES.names())
        needs = "It needs config.json, safetensors weights and a tokenizer, or one whole GGUF file"
        hint = f"{similar} {needs}; a hub id needs the network.".strip()
        if not Path(location).exists():
            hint = hub_hint(hint, f"hf download {'/'.join(location.split('/')[:2])}")
    special = [name for name in ("attention", "device_map", "quantization") if getattr(settings, name) is not None]
    hint += f" It may also load without {' or '.join(special)}." if special else ""
    return ModelLoadError(f"Cannot load a causal language model from '{settings.model}': {reason}", hint)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Inside, transformers and what it loads with report nothing but errors."""
    verbosity, hub = transformers_logging.get_verbosity(), logging.getLogger("huggingface_hub")
    before = hub.level
    hub.setLevel(logging.ERROR)  # it reports every try to reach the network; a failure is reported once, at the end
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # 8-bit layers write a line at every call
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        hub.setLevel(before)


@contextlib.contextmanager
def _without_gguf_bar() -> Iterator[None]:
    """Inside, transformers draws no bar while it unpacks GGUF tensors: its own switch does not reach that one."""
    from transformers import modeling_gguf_pytorch_utils as gguf

    own = gguf.tqdm
    gguf.tqdm = functools.partial(own, disable=True)
    try:
        yield
    finally:
        gguf.tqdm = own


@contextlib.contextmanager
def _without_meta_device(location: str) -> Iterator[None]:
    """Let transformers build a small model with its memory at once, not on the meta device first.

    For that device torch computes shapes in Python, and imports its compiler and sympy to do so. Every number that is
    not in the file is initialised after loading either way.
    """
    if sum(file.stat().st_size for file in Path(location).glob("*.safetensors")) not in range(1, _SMALL):
        yield
        return
    from transformers import PreTrainedModel
    from transformers.initialization import no_init_weights

    own = PreTrainedModel.get_init_context

    def without_meta(cls: Any, *args: Any, **kwargs: Any) -> list[Any]:
        contexts = own.__func__(cls, *args, **kwargs)
        return [no_init_weights() if context == torch.device("meta") else context for context in contexts]

    PreTrainedModel.get_init_context = classmethod(without_meta)
    try:
        yield
    finally:
        PreTrainedModel.get_init_context = own


def chosen_device(name: str | int) -> torch.device:
    """The device of a name; `auto` is this process' GPU, or what there is. A ModelLoadError if it cannot be used."""
    if name != "auto":
        try:
            return torch.empty(0, device=name).device
        except (RuntimeError, AssertionError) as error:
            raise ModelLoadError(
                f"Device '{name}' cannot be used: {str(error).splitlines()[0]}", "Try: auto"
            ) from error
    if torch.cuda.is_available():
        return torch.device("cuda", processes().local_rank % torch.cuda.device_count())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
