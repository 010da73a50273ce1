"""A model is read in the fastest way that gives its own logits, or refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from pad_cli.decoding.engine import PadEngine
from pad_cli.decoding.session import can_roll_back
from pad_cli.errors import ArchitectureError, ModelLoadError
from pad_cli.models.forward import ForwardMode
from pad_cli.models.language_model import LanguageModel, wrap_language_model
from pad_cli.recipe import DecodingSettings
from tests.decoding.adapters import train_lora, with_adapter
from tests.every_architecture import tiny_config, tiny_model
from tests.exact_reading import GENERATE_DIFFERS, assert_exact, assert_greedy_is_generates
from tests.tiny import make_language_model, make_reward_model
from tests.token_prompts import generate_all

KINDS = {
    "falcon_h1": "a multiplier of its own name, a state beside the KV cache",
    "hyperclovax": "it multiplies where Granite divides",
    "minicpm3": "it divides the state",
    "inkling_text": "it divides the state, and some tokens have no logits",
    "xlstm": "a cap of its own name, a cache of its own kind",
    "mamba": "the mask of the whole past means something else",
    "qwen3_next": "a recurrent state in most layers",
    "recurrent_gemma": "a recurrent state that is no part of a cache",
    "rwkv": "a state that padding enters",
    "llama4_text": "its decoder is the whole model",
    "bert": "a layer between decoder and unembedding",
    "roberta": "it counts positions itself, from another number",
    "bart": "it counts positions by places, padding included",
    "openai-gpt": "no cache at all",
    "gemma3": "the text part of a model of several media",
    "nemotron_h": "single steps without the limit that `forward` has",
    "moshi": "a cache that is cut at a window which `forward` does not have",
}
"""Architectures, one of each kind of trouble; tests/slow/test_architectures.py walks all."""


def wrapped(name: str, tokenizer: Any) -> LanguageModel:
    return wrap_language_model(name, tiny_model(name), tokenizer)


@pytest.mark.parametrize("name", KINDS)
def test_logits_are_the_models_own_single_padded_and_cached(name: str, byte_tokenizer: Any) -> None:
    model = wrapped(name, byte_tokenizer)
    assert_exact(model)
    if name not in GENERATE_DIFFERS:
        assert_greedy_is_generates(model)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("bert", "not causal"), ("xlnet", "mask token"), ("dory", "product"), ("gemma4_unified_assistant", "text alone")],
)
def test_a_model_without_logits_of_its_own_for_the_next_token_is_refused_by_architecture(
    name: str, reason: str, byte_tokenizer: Any
) -> None:
    model = tiny_model(name, is_decoder=False) if name == "bert" else tiny_model(name)
    with pytest.raises(ArchitectureError, match=rf"\({name}\) cannot be steered: .*{reason}") as refused:
        wrap_language_model("someone/theirs", model, byte_tokenizer)
    assert refused.value.exit_code == 2
    assert "'someone/theirs'" in refused.value.message


class Scaled(LlamaForCausalLM):  # type: ignore[misc]  # mypy does not follow transformers
    """Logits 1.7 times a Llama's, of which its configuration says nothing."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = 1.7 * output.logits
        return output


def scaled(dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    model = Scaled(tiny_config("llama")).eval().requires_grad_(False)
    return model.to(dtype)


@pytest.mark.parametrize(
    ("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-3), (torch.float16, 1e-3)], ids=str
)
def test_a_multiplier_that_no_configuration_names_is_found(
    dtype: torch.dtype, close: float, byte_tokenizer: Any
) -> None:
    model = wrap_language_model("scaled", scaled(dtype), byte_tokenizer)
    assert model.head.scale == pytest.approx(1.7, rel=close)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_in_half_precision_a_multiplier_is_the_configurations_own_number(
    dtype: torch.dtype, byte_tokenizer: Any
) -> None:
    model = wrap_language_model("half", tiny_model("hyperclovax").to(dtype), byte_tokenizer)
    assert (model.head.scale, model.head.cap, model.forward_mode) == (4.0, None, ForwardMode())


def test_a_slower_way_of_reading_is_said_on_stderr(byte_tokenizer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    wrapped("rwkv", byte_tokenizer)
    said = capsys.readouterr()
    assert said.out == ""
    assert "'rwkv' (rwkv)" in said.err
    assert "row by row" in said.err
    wrapped("llama", byte_tokenizer)
    assert capsys.readouterr().err == ""


def test_logits_that_are_not_numbers_are_refused_with_the_number_format(byte_tokenizer: Any) -> None:
    model = tiny_model("llama")
    model.lm_head.weight[7] = torch.nan
    with pytest.raises(ModelLoadError, match="not numbers in float32"):
        wrap_language_model("damaged", model, byte_tokenizer)


def test_only_a_model_that_keeps_apart_what_is_hidden_takes_back_tokens_in_several_rows(byte_tokenizer: Any) -> None:
    """MPT knows distances by places in the cache, hidden ones included; Mamba has nothing to take back."""
    found = {name: [can_roll_back(wrapped(name, byte_tokenizer), rows) for rows in (1, 2)] for name in ("mpt", "mamba")}
    assert found == {"mpt": [True, False], "mamba": [False, False]}
    assert can_roll_back(make_language_model(byte_tokenizer, seed=0), rows=2)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # called by peft
def test_an_adapter_acts_on_the_rewards_rows_alone_also_where_rows_are_read_one_by_one(byte_tokenizer: Any) -> None:
    policy = wrapped("bart", byte_tokenizer)
    assert policy.forward_mode.alone
    reward_model = with_adapter(make_reward_model(policy), train_lora(policy, ("q_proj", "v_proj")))
    engine = PadEngine(policy, reward_model)
    prompts, preference = [[5, 40, 77, 90, 31], [60, 61]], reward_model.preference(["humorous"])
    how = {path: DecodingSettings(max_new_tokens=6, path=path, guidance_weight=3.0) for path in ("paired", "separate")}
    paired = generate_all(engine, prompts, preference, how["paired"])
    assert paired == [generate_all(engine, [prompt], preference, how["separate"])[0] for prompt in prompts]
    assert paired != generate_all(engine, prompts, None, how["paired"])
