"""An adapter on the last rows of a batch is PEFT's own LoRA there, and nothing elsewhere."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from pad_cli.errors import CheckpointError
from pad_cli.models.adapter import Adapter
from pad_cli.models.checkpoint_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from pad_cli.models.language_model import LanguageModel, wrap_language_model
from tests.architectures import make_architecture

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
"""PEFT's PeftModel asks the model for it."""

LLAMA_LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LINEARS = {
    "llama": LLAMA_LINEARS,
    "gemma2": LLAMA_LINEARS,
    "qwen2": LLAMA_LINEARS,
    "gpt2": ["c_attn", "c_proj", "c_fc"],
    "gpt-neox": ["query_key_value", "attention.dense", "dense_h_to_4h", "dense_4h_to_h"],
    "opt": ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"],
}
"""Every linear layer of a body."""

ROWS = ([11, 40, 41, 90, 33, 21, 77, 150, 60, 61, 62, 63], [200, 17, 35], [9, 8, 7, 6, 5], [70, 71])
FIRST = 2

every_architecture = pytest.mark.parametrize("name", LINEARS)


def backbone(name: str, tokenizer: Any) -> LanguageModel:
    return make_architecture(name, tokenizer)


def peft_lora(model: LanguageModel, targets: Any, seed: int = 0, **settings: Any) -> Any:
    """A PeftModel on a copy of the model, with a random B that matters."""
    torch.manual_seed(seed)
    config = LoraConfig(**{"r": 3, "lora_alpha": 5, "task_type": "CAUSAL_LM", "target_modules": targets, **settings})
    config.fan_in_fan_out = model.model.config.model_type == "gpt2"
    trained = get_peft_model(copy.deepcopy(model.model), config).eval().requires_grad_(False)
    for name, parameter in trained.named_parameters():
        if "lora_" in name:
            parameter.copy_(0.3 * torch.randn_like(parameter))
    return trained


def saved(trained: Any, directory: Path) -> Path:
    trained.save_pretrained(directory)
    return directory


def adapted(model: LanguageModel, trained: Any) -> LanguageModel:
    """The PeftModel's own transformers model, every row of it with the delta."""
    return wrap_language_model("peft", trained.base_model.model, model.tokenizer)


def padded(rows: tuple[list[int], ...], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T) tokens and mask, padding on the left."""
    length = max(map(len, rows))
    tokens = torch.tensor([[pad] * (length - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    return tokens, mask


@torch.inference_mode()
def states(model: LanguageModel, rows: tuple[list[int], ...] = ROWS) -> torch.Tensor:
    return model.hidden_states(*padded(rows, model.tokenizer.pad_token_id))


def real(hidden: torch.Tensor, first: int = 0) -> torch.Tensor:
    """The states of the real tokens of `ROWS` from row `first`; what stands at padding means nothing."""
    return hidden[first:][padded(ROWS, 0)[1][first:].bool()]


@torch.inference_mode()
def cached_states(model: LanguageModel, prefill: int) -> torch.Tensor:
    """As `states`, the first tokens at once and the others one by one."""
    tokens, mask = padded(ROWS, model.tokenizer.pad_token_id)
    cache = model.new_cache()
    parts = [model.hidden_states(tokens[:, :prefill], mask[:, :prefill], cache)]
    for end in range(prefill + 1, tokens.shape[1] + 1):
        parts.append(model.hidden_states(tokens[:, end - 1 : end], mask[:, :end], cache))
    return torch.cat(parts, dim=1)


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def differ(first: torch.Tensor, second: torch.Tensor) -> bool:
    return bool((first - second).abs().max() > 0.05)


@pytest.fixture
def llama(byte_tokenizer: Any) -> LanguageModel:
    return backbone("llama", byte_tokenizer)


@pytest.fixture
def files(llama: LanguageModel, tmp_path: Path) -> Path:
    """An adapter on every linear layer of `llama`, written by PEFT; a test may spoil it."""
    return saved(peft_lora(llama, LLAMA_LINEARS), tmp_path / "adapter")


@every_architecture
def test_all_rows_equal_the_plain_peft_model(name: str, byte_tokenizer: Any, tmp_path: Path) -> None:
    model = backbone(name, byte_tokenizer)
    trained = peft_lora(model, LINEARS[name])
    adapter = Adapter.load(saved(trained, tmp_path), model.model)
    before = states(model)
    with adapter.on_rows_from(0):
        ours = states(model)
    close(real(ours), real(states(adapted(model, trained))))
    assert differ(real(ours), real(before))


@every_architecture
def test_a_mixed_batch_is_the_backbone_above_and_the_plain_peft_model_below(
    name: str, byte_tokenizer: Any, tmp_path: Path
) -> None:
    model = backbone(name, byte_tokenizer)
    trained = peft_lora(model, LINEARS[name])
    adapter = Adapter.load(saved(trained, tmp_path), model.model)
    before, theirs = states(model), states(adapted(model, trained))
    with adapter.on_rows_from(FIRST):
        ours = states(model)
    assert torch.equal(ours[:FIRST], before[:FIRST])
    close(real(ours, FIRST), real(theirs, FIRST))


@every_architecture
def test_a_mixed_batch_equals_pefts_own_mixed_batch(name: str, byte_tokenizer: Any, tmp_path: Path) -> None:
    """PEFT refuses OPT's feed-forward, which gets tokens in place of rows; the test above has it."""
    model = backbone(name, byte_tokenizer)
    trained = peft_lora(model, [target for target in LINEARS[name] if target not in ("fc1", "fc2")])
    adapter = Adapter.load(saved(trained, tmp_path), model.model)
    tokens, mask = padded(ROWS, model.tokenizer.pad_token_id)
    inputs = {"input_ids": tokens, "attention_mask": mask, "use_cache": False}
    if "position_ids" in inspect.signature(model.model.forward).parameters:
        inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    theirs = trained(**inputs, adapter_names=["__base__"] * FIRST + ["default"] * (len(ROWS) - FIRST)).logits
    with adapter.on_rows_from(FIRST):
        ours = model.model(**inputs).logits
    close(real(ours), real(theirs))


@every_architecture
@pytest.mark.parametrize("prefill", [1, 7])
def test_reading_with_a_cache_equals_reading_at_once(
    name: str, prefill: int, byte_tokenizer: Any, tmp_path: Path
) -> None:
    model = backbone(name, byte_tokenizer)
    adapter = Adapter.load(saved(peft_lora(model, LINEARS[name]), tmp_path), model.model)
    with adapter.on_rows_from(FIRST):
        close(real(cached_states(model, prefill)), real(states(model)))


@every_architecture
def test_without_rows_and_outside_the_context_the_model_is_bit_for_bit_the_backbone(
    name: str, byte_tokenizer: Any, tmp_path: Path
) -> None:
    model = backbone(name, byte_tokenizer)
    before = states(model)
    adapter = Adapter.load(saved(peft_lora(model, LINEARS[name]), tmp_path), model.model)
    assert torch.equal(states(model), before)
    for first in (len(ROWS), len(ROWS) + 1):
        with adapter.on_rows_from(first):
            assert torch.equal(states(model), before)
    with adapter.on_rows_from(0):
        assert differ(states(model), before)
    assert torch.equal(states(model), before)


def test_batches_of_other_sizes_may_follow_each_other_inside(llama: LanguageModel, files: Path) -> None:
    adapter = Adapter.load(files, llama.model)
    with adapter.on_rows_from(1):
        alone = [states(llama, rows) for rows in (ROWS[:2], ROWS[:1], ROWS)]
    for rows, hidden in zip((ROWS[:2], ROWS[:1], ROWS), alone, strict=True):
        with adapter.on_rows_from(1):
            assert torch.equal(states(llama, rows), hidden)
        assert torch.equal(hidden[:1], states(llama, rows)[:1])


def test_the_model_may_be_called_with_embeddings(llama: LanguageModel, files: Path) -> None:
    adapter = Adapter.load(files, llama.model)
    tokens = torch.tensor([ROWS[0], ROWS[0]])
    body, embedded = llama.model.get_decoder(), llama.model.get_input_embeddings()(tokens)
    with adapter.on_rows_from(1), torch.no_grad():
        expected = body(input_ids=tokens).last_hidden_state
        assert torch.equal(body(inputs_embeds=embedded).last_hidden_state, expected)
        assert torch.equal(body(tokens).last_hidden_state, expected)
    assert differ(expected[0], expected[1])


def test_an_exception_inside_leaves_the_backbone(llama: LanguageModel, files: Path) -> None:
    before = states(llama)
    adapter = Adapter.load(files, llama.model)
    with pytest.raises(IndexError), adapter.on_rows_from(0):
        states(llama, ([llama.vocabulary_size],))
    assert torch.equal(states(llama), before)
    with adapter.on_rows_from(0):
        assert differ(states(llama), before)


def test_the_context_cannot_be_nested_and_survives_the_attempt(llama: LanguageModel, files: Path) -> None:
    adapter = Adapter.load(files, llama.model)
    with adapter.on_rows_from(1):
        expected = states(llama)
        with pytest.raises(RuntimeError, match="already active"), adapter.on_rows_from(0):
            pass
        assert torch.equal(states(llama), expected)


def test_a_detached_adapter_leaves_no_hook_and_refuses_to_work(llama: LanguageModel, files: Path) -> None:
    adapter = Adapter.load(files, llama.model)
    assert hooks(llama) == len(LLAMA_LINEARS) * 2 + 1
    adapter.remove_hooks()
    adapter.remove_hooks()
    assert hooks(llama) == 0
    with pytest.raises(RuntimeError, match="detached"), adapter.on_rows_from(0):
        pass


def hooks(model: LanguageModel) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.model.modules())


def test_two_adapters_on_one_model_do_not_disturb_each_other(llama: LanguageModel, tmp_path: Path) -> None:
    trained = [peft_lora(llama, ["q_proj", "up_proj"], seed=seed, r=2 + seed) for seed in (0, 1)]
    adapters = [Adapter.load(saved(t, tmp_path / str(n)), llama.model) for n, t in enumerate(trained)]
    theirs = [states(adapted(llama, t)) for t in trained]
    assert differ(real(theirs[0]), real(theirs[1]))
    for number in (0, 1, 0):
        with adapters[number].on_rows_from(0):
            close(real(states(llama)), real(theirs[number]))
    before = states(llama)
    adapters[0].remove_hooks()
    with adapters[1].on_rows_from(0):
        close(real(states(llama)), real(theirs[1]))
    assert torch.equal(states(llama), before)


def test_a_module_that_gets_neither_rows_nor_tokens_of_the_batch_is_refused(llama: LanguageModel, files: Path) -> None:
    adapter = Adapter.load(files, llama.model)
    path = "model.layers.1.mlp.up_proj"
    module = llama.model.get_submodule(path)
    with adapter.on_rows_from(1):
        states(llama)
        with pytest.raises(CheckpointError, match=path):
            module(torch.zeros(5, llama.hidden_size))
    assert module(torch.zeros(5, llama.hidden_size)).shape == (5, module.out_features)


@pytest.mark.parametrize("shape", [(4, 16), (4, 6, 16), (24, 16)], ids=["rows", "rows x tokens", "tokens"])
def test_the_delta_is_the_formula_for_every_shape_of_input(llama: LanguageModel, files: Path, shape: Any) -> None:
    """W x + (5 / 3) B A x in rows 2 and 3 of 4, each of 6 tokens."""
    adapter = Adapter.load(files, llama.model)
    path = "model.layers.0.mlp.up_proj"
    module = llama.model.get_submodule(path)
    factors = load_file(files / ADAPTER_WEIGHTS)
    down, up = (factors[f"base_model.model.{path}.lora_{factor}.weight"] for factor in "AB")
    x = torch.randn(shape)
    before = module(x)
    with adapter.on_rows_from(2), torch.inference_mode():
        llama.hidden_states(torch.ones(4, 6, dtype=torch.long), torch.ones(4, 6, dtype=torch.long))
        after = module(x)
    half = shape[0] // 2
    assert torch.equal(after[:half], before[:half])
    close(after[half:], before[half:] + 5 / 3 * x[half:] @ down.T @ up.T)


def test_an_input_that_is_not_contiguous_gets_its_delta_too(llama: LanguageModel, files: Path) -> None:
    adapter = Adapter.load(files, llama.model)
    module = llama.model.get_submodule("model.layers.0.mlp.up_proj")
    x = torch.randn(4, 16, 6).transpose(1, 2)
    with adapter.on_rows_from(2), torch.inference_mode():
        llama.hidden_states(torch.ones(4, 6, dtype=torch.long), torch.ones(4, 6, dtype=torch.long))
        close(module(x), module(x.contiguous()))


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"use_rslora": True}, id="rslora"),
        pytest.param({"rank_pattern": {"q_proj": 4, r"layers\.1\.mlp\.up_proj": 2}}, id="ranks"),
        pytest.param({"use_rslora": True, "rank_pattern": {"q_proj": 4}}, id="both"),
        pytest.param({"layers_to_transform": [1]}, id="one layer"),
        pytest.param({"target_modules": r".*layers\.0\..*_proj"}, id="a pattern of targets"),
        pytest.param({"target_modules": "all-linear"}, id="all linear layers"),
        pytest.param({"lora_dropout": 0.5}, id="dropout"),
        pytest.param({"init_lora_weights": "gaussian"}, id="gaussian"),
    ],
)
def test_scalings_and_targets_are_those_of_peft(llama: LanguageModel, tmp_path: Path, settings: Any) -> None:
    trained = peft_lora(llama, **{"targets": ["q_proj", "up_proj"], **targets_of(settings)})
    adapter = Adapter.load(saved(trained, tmp_path), llama.model)
    with adapter.on_rows_from(0):
        close(real(states(llama)), real(states(adapted(llama, trained))))


def targets_of(settings: dict[str, Any]) -> dict[str, Any]:
    renamed = {"target_modules": "targets"}
    return {renamed.get(key, key): value for key, value in settings.items()}


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_what_is_saved_peft_loads_and_so_do_we(name: str, byte_tokenizer: Any, tmp_path: Path) -> None:
    model = backbone(name, byte_tokenizer)
    trained = peft_lora(model, LINEARS[name], use_rslora=True)
    adapter = Adapter.load(saved(trained, tmp_path / "theirs"), model.model)
    (tmp_path / "ours").mkdir()
    adapter.save(tmp_path / "ours")
    theirs = PeftModel.from_pretrained(copy.deepcopy(backbone(name, byte_tokenizer).model), tmp_path / "ours").eval()
    again = Adapter.load(tmp_path / "ours", model.model)
    with adapter.on_rows_from(0):
        ours = states(model)
    with again.on_rows_from(0):
        assert torch.equal(states(model), ours)
    close(real(ours), real(states(adapted(model, theirs))))
    for first, second in zip(adapter.tensors, again.tensors, strict=True):
        assert torch.equal(first, second)


def test_fingerprinted_tensors_change_with_the_weights_and_the_scaling_alone(llama: LanguageModel, files: Path) -> None:
    def tensors(model: LanguageModel) -> list[torch.Tensor]:
        return list(Adapter.load(files, model.model).tensors)

    def equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
        return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

    before = tensors(llama)
    factors = load_file(files / ADAPTER_WEIGHTS)
    half = wrap_language_model("half", copy.deepcopy(llama.model).to(torch.bfloat16), llama.tokenizer)
    assert equal(tensors(half), before)
    last = max(factors)
    save_file({**factors, last: factors[last].double()}, files / ADAPTER_WEIGHTS)
    assert next(iter(load_file(files / ADAPTER_WEIGHTS))) == last, "safetensors puts the widest format first"
    assert equal(tensors(llama), before)
    change(files, lora_alpha=6)
    assert not equal(tensors(llama), before)
    change(files, lora_alpha=5)
    assert equal(tensors(llama), before)
    factors["base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"][0, 0] += 1
    save_file(factors, files / ADAPTER_WEIGHTS)
    assert not equal(tensors(llama), before)


def test_a_bfloat16_model_is_adapted_in_bfloat16_whatever_the_files_hold(llama: LanguageModel, files: Path) -> None:
    model = wrap_language_model("half", copy.deepcopy(llama.model).to(torch.bfloat16), llama.tokenizer)
    exact, rounded = Adapter.load(files, llama.model), Adapter.load(files, model.model)
    with exact.on_rows_from(FIRST), rounded.on_rows_from(FIRST):
        theirs, ours = states(llama), states(model)
    assert ours.dtype == torch.bfloat16
    error = real(ours.float() - theirs).abs().mean()
    effect = real(theirs - states(llama), FIRST).abs().mean()
    assert error < 0.2 * effect


def change(directory: Path, **keys: Any) -> None:
    """Write keys of adapter_config.json."""
    config = json.loads((directory / ADAPTER_CONFIG).read_text())
    (directory / ADAPTER_CONFIG).write_text(json.dumps({**config, **keys}))


def set_to(**keys: Any) -> Callable[[Path], None]:
    return functools.partial(change, **keys)


@contextlib.contextmanager
def opened(directory: Path) -> Iterator[dict[str, torch.Tensor]]:
    """The tensors of an adapter, written back at the end."""
    factors = load_file(directory / ADAPTER_WEIGHTS)
    yield factors
    save_file({key: tensor.contiguous() for key, tensor in factors.items()}, directory / ADAPTER_WEIGHTS)


A = "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"
B = "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"


def delete(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).unlink()


def write(name: str, content: bytes) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        (directory / name).write_bytes(content)

    return damage


def truncate(name: str) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        content = (directory / name).read_bytes()
        (directory / name).write_bytes(content[: len(content) // 2])

    return damage


def drop(key: str) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        with opened(directory) as factors:
            del factors[key]

    return damage


def drop_all(directory: Path) -> None:
    with opened(directory) as factors:
        factors.clear()


def reshape(key: str, change_shape: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        with opened(directory) as factors:
            factors[key] = change_shape(factors[key])

    return damage


def no_rank(directory: Path) -> None:
    with opened(directory) as factors:
        factors[A], factors[B] = factors[A][:0], factors[B][:, :0]


def add(key: str, *shape: int) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        with opened(directory) as factors:
            factors[key] = torch.zeros(shape)

    return damage


def move(path: str, size_in: int, size_out: int) -> Callable[[Path], None]:
    """Another target, whose A and B would have fitting shapes."""

    def damage(directory: Path) -> None:
        add(f"base_model.model.{path}.lora_A.weight", 3, size_in)(directory)
        add(f"base_model.model.{path}.lora_B.weight", size_out, 3)(directory)

    return damage


@pytest.mark.parametrize(
    ("damage", "names"),
    [
        pytest.param(delete(ADAPTER_CONFIG), ADAPTER_CONFIG, id="no config"),
        pytest.param(delete(ADAPTER_WEIGHTS), ADAPTER_WEIGHTS, id="no weights"),
        pytest.param(truncate(ADAPTER_CONFIG), ADAPTER_CONFIG, id="config cut short"),
        pytest.param(truncate(ADAPTER_WEIGHTS), ADAPTER_WEIGHTS, id="weights cut short"),
        pytest.param(write(ADAPTER_CONFIG, b"\xff\xfe\x00"), ADAPTER_CONFIG, id="config is no text"),
        pytest.param(write(ADAPTER_CONFIG, b"[]"), ADAPTER_CONFIG, id="config is a list"),
        pytest.param(write(ADAPTER_CONFIG, b"{}"), "PEFT type None", id="config is empty"),
        pytest.param(write(ADAPTER_WEIGHTS, b""), ADAPTER_WEIGHTS, id="weights empty"),
        pytest.param(set_to(peft_type="IA3"), "IA3", id="another peft type"),
        pytest.param(set_to(peft_type=[1]), ADAPTER_CONFIG, id="peft type is a list"),
        pytest.param(set_to(use_dora=True), "use_dora=True", id="dora"),
        pytest.param(set_to(bias="all"), "bias='all'", id="bias"),
        pytest.param(set_to(modules_to_save=["embed_tokens"]), "modules_to_save", id="modules to save"),
        pytest.param(set_to(trainable_token_indices=[1, 2]), "trainable_token_indices", id="trainable tokens"),
        pytest.param(set_to(lora_bias=True), "lora_bias", id="lora bias"),
        pytest.param(set_to(alora_invocation_tokens=[1], task_type=None), "alora", id="activated lora"),
        pytest.param(set_to(layer_replication=[[0, 2], [0, 2]]), "layer_replication", id="layers replicated"),
        pytest.param(set_to(target_parameters=["mlp.experts"]), "target_parameters", id="parameters as targets"),
        pytest.param(set_to(use_qalora=True), "use_qalora", id="qalora"),
        pytest.param(set_to(init_lora_weights="pissa"), "init_lora_weights='pissa'", id="pissa"),
        pytest.param(set_to(init_lora_weights="pissa_niter_4"), "pissa_niter_4", id="fast pissa"),
        pytest.param(set_to(init_lora_weights="mica"), "mica", id="mica"),
        pytest.param(set_to(kasa_config=7), "kasa_config=7", id="a sub-configuration"),
        pytest.param(set_to(invented={"on": True}), "invented", id="a setting of a newer peft"),
        pytest.param(set_to(lora_alpha="five"), "no scaling", id="alpha is no number"),
        pytest.param(set_to(lora_alpha=None), "no scaling", id="alpha is missing"),
        pytest.param(set_to(alpha_pattern={"up_proj": 5}), "alpha_pattern", id="alphas of single modules"),
        pytest.param(drop(A), "only lora_B for 'model.layers.0.mlp.up_proj'", id="B without A"),
        pytest.param(drop(B), "only lora_A for 'model.layers.0.mlp.up_proj'", id="A without B"),
        pytest.param(drop_all, "holds no LoRA weights", id="no targets"),
        pytest.param(reshape(A, lambda a: a[:, 1:]), "model.layers.0.mlp.up_proj", id="A of another width"),
        pytest.param(reshape(A, lambda a: a[1:]), "model.layers.0.mlp.up_proj", id="A of another rank"),
        pytest.param(reshape(A, lambda a: a[0]), "model.layers.0.mlp.up_proj", id="A is a vector"),
        pytest.param(reshape(A, lambda a: a[0, 0]), "model.layers.0.mlp.up_proj", id="A is a number"),
        pytest.param(reshape(B, lambda b: b.T), "model.layers.0.mlp.up_proj", id="B transposed"),
        pytest.param(reshape(B, lambda b: b[..., None]), "model.layers.0.mlp.up_proj", id="B of three dimensions"),
        pytest.param(no_rank, "model.layers.0.mlp.up_proj", id="rank 0"),
        pytest.param(move("model.layers.2.mlp.up_proj", 16, 32), "model.layers.2", id="a layer too many"),
        pytest.param(move("model.norm", 16, 16), "LlamaRMSNorm", id="a norm"),
        pytest.param(move("model.embed_tokens", 260, 16), "Embedding", id="an embedding as a linear layer"),
        pytest.param(move("lm_head", 16, 260), "'lm_head', which is the output embedding", id="output embedding"),
        pytest.param(
            add("base_model.model.model.embed_tokens.lora_embedding_A", 3, 260), "on an embedding", id="embedding"
        ),
        pytest.param(add(f"{B.removesuffix('weight')}bias", 32), "up_proj.lora_B.bias", id="bias of B"),
        pytest.param(add(A.replace("lora_A.weight", "lora_magnitude_vector"), 32), "magnitude", id="magnitude"),
        pytest.param(add("model.layers.0.mlp.up_proj.lora_A.weight", 3, 16), "not plain LoRA", id="no prefix"),
    ],
)
def test_what_is_not_plain_lora_on_this_model_is_refused_and_named(
    llama: LanguageModel, files: Path, damage: Callable[[Path], None], names: str
) -> None:
    damage(files)
    with pytest.raises(CheckpointError) as caught:
        Adapter.load(files, llama.model)
    assert names in caught.value.message
    assert caught.value.hint
    assert hooks(llama) == 0


def test_a_missing_directory_is_refused(llama: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="missing"):
        Adapter.load(tmp_path / "missing", llama.model)


@pytest.mark.parametrize("name", ["llama", "gpt-neox"], ids=["tied", "not tied"])
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`:UserWarning")
def test_pefts_lora_on_either_embedding_is_refused(name: str, byte_tokenizer: Any, tmp_path: Path) -> None:
    model = backbone(name, byte_tokenizer)
    names = {id(module): path for path, module in model.model.named_modules()}
    for embedding in (model.model.get_input_embeddings(), model.model.get_output_embeddings()):
        path = names[id(embedding)]
        trained = peft_lora(model, [*LINEARS[name], path.rpartition(".")[2]])
        with pytest.raises(CheckpointError, match=path):
            Adapter.load(saved(trained, tmp_path / path), model.model)


@pytest.mark.parametrize("settings", [{"bias": "lora_only"}, {"use_dora": True}], ids=str)
def test_pefts_other_variants_are_refused(llama: LanguageModel, tmp_path: Path, settings: dict[str, Any]) -> None:
    trained = peft_lora(llama, ["q_proj"], **settings)
    with pytest.raises(CheckpointError, match=next(iter(settings))):
        Adapter.load(saved(trained, tmp_path), llama.model)


def test_a_quantised_module_is_refused(llama: LanguageModel, files: Path) -> None:
    module = llama.model.get_submodule("model.layers.1.mlp.up_proj")
    module.weight = torch.nn.Parameter(module.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.up_proj.*int8"):
        Adapter.load(files, llama.model)


def test_a_default_of_a_newer_peft_is_no_obstacle(llama: LanguageModel, files: Path) -> None:
    change(files, invented=None, invented_too=False)
    Adapter.load(files, llama.model)


def test_importing_the_module_does_not_import_peft() -> None:
    program = "import sys, pad_cli.models.adapter; print('peft' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
