"""Whatever form a model comes in, it is the model that it was made from, or it is refused."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from pad_cli.equation import LogitHead
from pad_cli.errors import ModelLoadError
from pad_cli.models.language_model import (
    LanguageModel,
    load_language_model,
    same_vocabulary,
    vocabulary_hash,
    wrap_language_model,
)
from pad_cli.recipe import ModelSettings
from tests.architectures import make_architecture
from tests.tiny import make_language_model, make_tokenizer

TOKENS = torch.tensor([[11, 40, 41, 90, 33, 21, 77, 150], [200, 17, 35, 9, 8, 60, 61, 62]])
Kind = gguf.GGMLQuantizationType


def load(name: Path | str, **settings: Any) -> LanguageModel:
    return load_language_model(ModelSettings.model_validate({"model": str(name), **settings}))


def refused(name: Path | str, **settings: Any) -> ModelLoadError:
    with pytest.raises(ModelLoadError) as caught:
        load(name, **settings)
    assert caught.value.hint
    return caught.value


def logits(model: LanguageModel) -> torch.Tensor:
    return model.head(model.hidden_states(TOKENS, torch.ones_like(TOKENS)).flatten(0, 1))


def logits_token_by_token(model: LanguageModel) -> torch.Tensor:
    cache, states = model.new_cache(), []
    for step in range(TOKENS.shape[1]):
        mask = torch.ones(len(TOKENS), step + 1, dtype=torch.long)
        states.append(model.hidden_states(TOKENS[:, step : step + 1], mask, cache)[:, -1])
    return model.head(torch.stack(states, dim=1).flatten(0, 1))


def close(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """A query or key projection in llama.cpp's order: it rotates neighbouring rows, transformers distant halves."""
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(
    model: LanguageModel, path: Path, kind: Kind = Kind.F32, *, architecture: str = "llama", without: str = "nothing"
) -> Path:
    """Write a Llama as llama.cpp's converter does, leaving out the tensors whose name contains `without`."""
    config, tokenizer = model.model.config, model.tokenizer
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    special = set(tokenizer.all_special_tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([gguf.TokenType.CONTROL if t in special else gguf.TokenType.NORMAL for t in tokens])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, parameter in model.model.named_parameters():
        weight, short = parameter.numpy(), names.get_name(name, try_suffixes=(".weight",))
        if without in short:
            continue
        if "q_proj" in name:
            weight = interleaved(weight, config.num_attention_heads)
        if "k_proj" in name:
            weight = interleaved(weight, config.num_key_value_heads)
        stored = Kind.F32 if weight.ndim == 1 else kind
        writer.add_tensor(short, gguf.quants.quantize(np.ascontiguousarray(weight), stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def gguf_file(policy: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(policy, tmp_path_factory.mktemp("gguf") / "model-F32.gguf")


@pytest.mark.parametrize("kind", ["tied", "untied, grouped queries"])
def test_a_gguf_file_gives_the_logits_of_the_model_it_was_made_from(
    kind: str, policy: LanguageModel, byte_tokenizer: Any, tmp_path: Path
) -> None:
    original = policy if kind == "tied" else make_architecture("llama", byte_tokenizer)
    close(logits(load(write_gguf(original, tmp_path / "model.gguf"))), logits(original))


def test_a_packed_gguf_file_gives_the_logits_of_its_unpacked_weights(policy: LanguageModel, tmp_path: Path) -> None:
    unpacked = make_language_model(policy.tokenizer, seed=0)
    for weight in (parameter for parameter in unpacked.model.parameters() if parameter.ndim == 2):
        blocks = gguf.quants.quantize(weight.numpy(), Kind.Q8_0)
        weight.copy_(torch.from_numpy(gguf.quants.dequantize(blocks, Kind.Q8_0)))
    loaded = load(write_gguf(policy, tmp_path / "model-Q8_0.gguf", Kind.Q8_0))
    assert not torch.equal(logits(loaded), logits(policy))
    close(logits(loaded), logits(unpacked))


def test_loading_a_gguf_file_draws_no_bar_but_ours(gguf_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(gguf_file)
    assert "Converting" not in capfd.readouterr().err


def test_a_gguf_file_has_the_vocabulary_of_the_model_it_was_made_from(policy: LanguageModel, gguf_file: Path) -> None:
    loaded = load(gguf_file)
    text = [{"role": "user", "content": "Hé <end>"}]
    assert same_vocabulary(loaded, policy)
    assert vocabulary_hash(loaded.tokenizer) == vocabulary_hash(policy.tokenizer)
    assert loaded.end_tokens == policy.end_tokens
    assert loaded.tokenizer.apply_chat_template(text) == policy.tokenizer.apply_chat_template(text)
    assert loaded.tokenizer("x<|endoftext|>").input_ids == policy.tokenizer("x<|endoftext|>").input_ids


def test_a_gguf_file_of_equal_weights_has_an_equal_fingerprint(policy: LanguageModel, gguf_file: Path) -> None:
    """So that a reward model trained on the model takes the file for its backbone."""
    assert load(gguf_file).fingerprint == policy.fingerprint


def test_a_model_from_a_gguf_file_can_be_moved_and_saved_as_any_other(gguf_file: Path, tmp_path: Path) -> None:
    loaded = load(gguf_file)
    loaded.model.to("cpu").save_pretrained(tmp_path)
    loaded.tokenizer.save_pretrained(tmp_path)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    close(logits(load(tmp_path)), logits(loaded))


@pytest.mark.parametrize(("dtype", "found"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
def test_gguf_weights_are_unpacked_to_float32_unless_another_format_is_asked(
    dtype: str, found: torch.dtype, policy: LanguageModel, tmp_path: Path
) -> None:
    loaded = load(write_gguf(policy, tmp_path / "model-BF16.gguf", Kind.BF16), dtype=dtype)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {found}


def test_a_gguf_file_is_read_from_its_own_directory(
    policy: LanguageModel, other_policy: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    write_gguf(other_policy, tmp_path / "here" / "model.gguf")
    write_gguf(policy, tmp_path / "there" / "model.gguf")
    monkeypatch.chdir(tmp_path / "here")
    assert load("../there/model.gguf").fingerprint == policy.fingerprint
    assert load("model.gguf").fingerprint == other_policy.fingerprint


def test_a_hub_id_names_a_repository_or_a_gguf_file_in_it(
    policy: LanguageModel, model_directory: Path, gguf_file: Path, tmp_path: Path
) -> None:
    """From the hub's own cache, in a process that has no network."""
    for repository in ("plain", "packed"):
        cached, commit = tmp_path / "hub" / f"models--owner--{repository}", "0" * 40
        (cached / "refs").mkdir(parents=True)
        (cached / "refs" / "main").write_text(commit)
        if repository == "plain":
            shutil.copytree(model_directory, cached / "snapshots" / commit)
        else:
            (cached / "snapshots" / commit).mkdir(parents=True)
            shutil.copy(gguf_file, cached / "snapshots" / commit / "file.gguf")
    program = (
        "from pad_cli.models.language_model import load_language_model\n"
        "from pad_cli.recipe import ModelSettings\n"
        "for name in ('owner/plain', 'owner/packed/file.gguf'):\n"
        "    print(load_language_model(ModelSettings(model=name)).fingerprint)"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=environment, check=True
    )
    assert done.stdout.split() == [policy.fingerprint] * 2


def test_a_hub_file_that_the_working_directory_hides_is_refused(
    gguf_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(gguf_file.parent)
    assert "in place of 'owner/name/model-F32.gguf'" in refused("owner/name/model-F32.gguf").message


def test_a_missing_gguf_file_is_refused_with_the_nearest_name(gguf_file: Path) -> None:
    error = refused(gguf_file.with_name("model-F23.gguf"))
    assert "No GGUF file" in error.message
    assert "model-F32.gguf" in error.hint
    assert "No GGUF file" in refused("a/b/c/d.gguf").message


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut in the header": lambda content: content[:100],
    "cut in the weights": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "text": lambda content: b"no weights " * 100,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_gguf_file_is_refused(gguf_file: Path, damage: str, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(DAMAGE[damage](gguf_file.read_bytes()))
    error = refused(tmp_path / "model.gguf")
    assert str(tmp_path / "model.gguf") in error.message
    assert "one whole GGUF file" in error.hint


def test_a_gguf_file_of_an_unknown_architecture_is_refused(policy: LanguageModel, tmp_path: Path) -> None:
    assert "lama9" in refused(write_gguf(policy, tmp_path / "model.gguf", architecture="lama9")).message


def test_a_gguf_file_that_lacks_weights_is_refused(policy: LanguageModel, tmp_path: Path) -> None:
    """As the first of several parts does; transformers would go on with random numbers."""
    error = refused(write_gguf(policy, tmp_path / "model-00001-of-00002.gguf", without="blk.1.ffn_up"))
    assert "model.layers.1.mlp.up_proj.weight" in error.message


def test_a_directory_that_lacks_weights_is_refused(model_directory: Path, tmp_path: Path) -> None:
    shutil.copytree(model_directory, tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    assert "model.norm.weight" in refused(tmp_path).message


def make_wide_model(directory: Path) -> LanguageModel:
    """A model with rows of 64 numbers, one block of 4-bit weights, saved in float32."""
    model = make_language_model(make_tokenizer(), seed=0, hidden_size=64, tied=False)
    model.model.save_pretrained(directory)
    model.tokenizer.save_pretrained(directory)
    return model


@pytest.fixture(params=["4bit", "8bit"])
def quantization(request: pytest.FixtureRequest) -> str:
    pytest.importorskip("bitsandbytes")
    return str(request.param)


def test_a_packed_model_is_near_its_original_and_has_its_head(quantization: str, tmp_path: Path) -> None:
    original = make_wide_model(tmp_path)
    loaded = load(tmp_path, quantization=quantization)
    body = loaded.model.get_submodule("model.layers.0.mlp.up_proj").weight
    assert body.dtype == {"4bit": torch.uint8, "8bit": torch.int8}[quantization]
    assert torch.equal(loaded.head.weight, original.head.weight)
    assert torch.corrcoef(torch.stack([logits(loaded).flatten(), logits(original).flatten()]))[0, 1] > 0.8
    assert not torch.allclose(logits(loaded), logits(original))


def test_a_packed_model_in_two_pieces_gives_the_logits_of_the_whole(quantization: str, tmp_path: Path) -> None:
    make_wide_model(tmp_path)
    loaded = load(tmp_path, quantization=quantization)
    close(logits(loaded), loaded.model(TOKENS).logits.flatten(0, 1))
    close(logits_token_by_token(loaded), logits(loaded), tolerance=0.3)  # 8 bits: it depends on the batch


def test_a_packed_model_has_a_fingerprint_of_its_own(quantization: str, tmp_path: Path) -> None:
    original = make_wide_model(tmp_path)
    first, again = (load(tmp_path, quantization=quantization) for _ in range(2))
    logits(first)
    assert wrap_language_model("read", again.model, again.tokenizer).fingerprint == first.fingerprint
    assert first.fingerprint != original.fingerprint


def test_the_fingerprint_of_a_packed_model_depends_on_its_scales(quantization: str, tmp_path: Path) -> None:
    """Doubling a weight leaves its packed numbers as they are."""
    original = make_wide_model(tmp_path)
    before = load(tmp_path, quantization=quantization)
    original.model.get_submodule("model.layers.1.mlp.down_proj").weight.mul_(2)
    original.model.save_pretrained(tmp_path)
    assert load(tmp_path, quantization=quantization).fingerprint != before.fingerprint


@pytest.mark.parametrize(("dtype", "found"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
def test_four_bit_weights_are_computed_with_in_the_models_format(
    dtype: str, found: torch.dtype, tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    make_wide_model(tmp_path)
    loaded = load(tmp_path, quantization="4bit", dtype=dtype)
    assert loaded.model.get_submodule("model.layers.0.mlp.up_proj").compute_dtype == found
    assert loaded.head.weight.dtype == found


def test_a_checkpoint_that_was_saved_packed_is_loaded_packed(quantization: str, tmp_path: Path) -> None:
    make_wide_model(tmp_path / "plain")
    packed = load(tmp_path / "plain", quantization=quantization)
    packed.model.save_pretrained(tmp_path / "packed")
    packed.tokenizer.save_pretrained(tmp_path / "packed")
    close(logits(load(tmp_path / "packed")), logits(packed))


def test_a_packed_output_embedding_is_refused(byte_tokenizer: Any) -> None:
    model = make_language_model(byte_tokenizer, seed=0, tied=False)
    model.model.lm_head.weight = torch.nn.Parameter(model.head.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(ModelLoadError, match="packed"):
        wrap_language_model("packed", model.model, byte_tokenizer)


PARTS = ("model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm", "model.rotary_emb", "lm_head")


def all_on_cpu_but(**elsewhere: str) -> dict[str, str]:
    names = {part.rpartition("model.")[2].replace(".", "_"): part for part in PARTS}
    return {**dict.fromkeys(PARTS, "cpu"), **{names[name]: place for name, place in elsewhere.items()}}


@pytest.mark.parametrize("device_map", ["auto", "balanced", {"": "cpu"}, all_on_cpu_but(layers_1="disk")], ids=str)
def test_a_model_placed_by_a_device_map_is_the_same_model(
    device_map: Any, policy: LanguageModel, model_directory: Path
) -> None:
    loaded = load(model_directory, device_map=device_map)
    assert loaded.fingerprint == policy.fingerprint
    close(logits(loaded), logits(policy))
    close(logits_token_by_token(loaded), logits(policy))


def test_layers_on_the_disk_are_not_in_memory(model_directory: Path) -> None:
    """Guards the test above against a device map that nobody followed."""
    loaded = load(model_directory, device_map=all_on_cpu_but(layers_1="disk"))
    places = {name: parameter.device.type for name, parameter in loaded.model.named_parameters()}
    assert {name.split(".")[2] for name, place in places.items() if place == "meta"} == {"1"}


@pytest.mark.parametrize("part", ["embed_tokens", "lm_head"])
def test_an_embedding_on_the_disk_is_refused(part: str, byte_tokenizer: Any, tmp_path: Path) -> None:
    make_wide_model(tmp_path)
    error = refused(tmp_path, device_map=all_on_cpu_but(**{part: "disk"}))
    assert "not on a device" in error.message
    assert part in error.hint


@pytest.mark.parametrize("place", ["warp", "cuda:77", 77])
def test_a_device_map_to_a_device_that_is_not_there_is_refused(model_directory: Path, place: str | int) -> None:
    assert f"'{place}'" in refused(model_directory, device_map={"": place}).message


def test_states_come_to_the_heads_device(policy: LanguageModel) -> None:
    """Every machine has a second device that computes shapes alone."""
    head = LogitHead(policy.head.weight.to("meta"), None, 1.0, None)
    apart = replace(policy, head=head)
    assert apart.hidden_states(TOKENS, torch.ones_like(TOKENS)).device == apart.device == torch.device("meta")


def test_tokens_go_to_the_embeddings_device(byte_tokenizer: Any) -> None:
    plain = make_language_model(byte_tokenizer, seed=0)
    model = plain.model.to("meta")
    model.set_attn_implementation("eager")  # sdpa looks at the mask's numbers
    apart = replace(plain, model=model, head=LogitHead(model.lm_head.weight, None, 1.0, None))
    assert apart.hidden_states(TOKENS, torch.ones_like(TOKENS)).shape == (*TOKENS.shape, plain.hidden_size)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_is_computed_as_asked(attention: str, policy: LanguageModel, model_directory: Path) -> None:
    loaded = load(model_directory, attention=attention)
    assert loaded.model.config._attn_implementation == attention
    close(logits(loaded), logits(policy))


@pytest.mark.parametrize(
    "attention",
    [
        "psychic",
        pytest.param(
            "flash_attention_2",
            marks=pytest.mark.skipif(
                importlib.util.find_spec("flash_attn") is not None, reason="flash attention is installed here"
            ),
        ),
    ],
)
def test_an_attention_that_is_not_there_is_refused(attention: str, model_directory: Path) -> None:
    error = refused(model_directory, attention=attention)
    assert attention.partition("_")[0] in error.message.lower()
    assert "without attention" in error.hint


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"model": "m", "device": "cpu", "device_map": "auto"}, "give either `device` or `device_map`"),
        ({"model": "m", "device_map": "cuda:1"}, "'auto', 'balanced'"),
        ({"model": "m", "device_map": {}}, "at least 1 item"),
        ({"model": "m", "device_map": {"": -1}}, "greater than or equal to 0"),
        ({"model": "m", "quantization": "2bit"}, "'4bit' or '8bit'"),
        ({"model": "m.gguf", "quantization": "4bit"}, "cannot pack a GGUF file"),
        ({"model": "m", "attention": ""}, "at least 1 character"),
    ],
)
def test_settings_that_contradict_each_other_or_mean_nothing_are_refused(
    settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValidationError, match=problem):
        ModelSettings.model_validate(settings)
