"""A language model in two pieces gives the logits of the whole, whatever its architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

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
from tests.architectures import ARCHITECTURES, make_architecture
from tests.tiny import make_language_model, make_tokenizer

ROWS = ([11, 40, 41, 90, 33, 21, 77, 150, 60, 61, 62, 63], [200, 17, 35], [9])
"""Token ids of three rows; the first is longer than the sliding windows."""


@pytest.fixture(scope="module", params=ARCHITECTURES)
def language_model(request: pytest.FixtureRequest, byte_tokenizer: Any) -> LanguageModel:
    return make_architecture(request.param, byte_tokenizer)


def whole_logits(model: LanguageModel, row: list[int]) -> torch.Tensor:
    """The model's own logits of one unpadded row: (T, V)."""
    return model.model(torch.tensor([row])).logits[0]


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_head_after_body_equals_the_models_logits_at_real_positions(language_model: LanguageModel, side: str) -> None:
    length, pad = max(map(len, ROWS)), language_model.tokenizer.pad_token_id
    gaps = [length - len(row) for row in ROWS]
    before = [gap if side == "left" else 0 for gap in gaps]
    tokens = torch.full((len(ROWS), length), pad)
    mask = torch.zeros_like(tokens)
    for number, row in enumerate(ROWS):
        here = slice(before[number], before[number] + len(row))
        tokens[number, here], mask[number, here] = torch.tensor(row), 1
    hidden = language_model.hidden_states(tokens, mask)
    for number, row in enumerate(ROWS):
        real = hidden[number, before[number] : before[number] + len(row)]
        close(language_model.head(real), whole_logits(language_model, row))


def test_reading_token_by_token_with_a_cache_equals_reading_at_once(language_model: LanguageModel) -> None:
    row = ROWS[0]
    cache = language_model.new_cache()
    states = []
    for step in range(len(row)):
        mask = torch.ones(1, step + 1, dtype=torch.long)
        states.append(language_model.hidden_states(torch.tensor([[row[step]]]), mask, cache)[0, -1])
    close(language_model.head(torch.stack(states)), whole_logits(language_model, row))


def test_sizes_are_those_of_the_unembedding(language_model: LanguageModel) -> None:
    one = torch.ones(1, 1, dtype=torch.long)
    assert language_model.hidden_states(one, one).shape == (1, 1, language_model.hidden_size)
    assert whole_logits(language_model, [5]).shape == (1, language_model.vocabulary_size)


VARIANTS = [
    pytest.param(bias, scale, cap, id=f"bias {bias}, scale {scale}, cap {cap}")
    for bias in (False, True)
    for scale in (1.0, 0.25)
    for cap in (None, 2.0)
]


@pytest.fixture
def logit_head(request: pytest.FixtureRequest) -> LogitHead:
    bias, scale, cap = request.param
    torch.manual_seed(4)
    return LogitHead(torch.randn(9, 5), torch.randn(9) if bias else None, scale, cap)


every_head = pytest.mark.parametrize("logit_head", [v.values for v in VARIANTS], indirect=True, ids=str)


def test_logits_are_capped_after_scale_and_bias() -> None:
    """E h + bias = 2 * 3 + 1 = 7; scaled by 2: 14; capped at 10: 10 tanh 1.4 = 8.8535."""
    head = LogitHead(torch.tensor([[2.0]]), torch.tensor([1.0]), 2.0, 10.0)
    assert head(torch.tensor([[3.0]])).item() == pytest.approx(8.8535, abs=1e-4)


@every_head
def test_logits_at_some_tokens_are_those_of_the_full_computation(logit_head: LogitHead) -> None:
    hidden, tokens = torch.randn(4, 5), torch.randint(9, (4, 3))
    close(logit_head.at(hidden, tokens), logit_head(hidden).gather(1, tokens))


@every_head
def test_the_change_at_some_tokens_is_that_of_the_full_computation(logit_head: LogitHead) -> None:
    hidden, shift, tokens = torch.randn(4, 5), torch.randn(4, 5), torch.randint(9, (4, 3))
    full = logit_head(hidden + shift) - logit_head(hidden)
    close(logit_head.change_at(hidden, shift, tokens), full.gather(1, tokens))


@every_head
def test_the_restricted_head_gives_the_chosen_columns_in_their_order(logit_head: LogitHead) -> None:
    hidden, tokens = torch.randn(4, 5), torch.tensor([7, 0, 3])
    close(logit_head.rows(tokens)(hidden), logit_head(hidden)[:, tokens])


def test_equal_weights_have_equal_fingerprints(policy: LanguageModel, model_directory: Path) -> None:
    assert make_language_model(policy.tokenizer, seed=0).fingerprint == policy.fingerprint
    assert load_language_model(ModelSettings(model=str(model_directory))).fingerprint == policy.fingerprint


def test_the_fingerprint_does_not_depend_on_the_number_format(policy: LanguageModel, model_directory: Path) -> None:
    settings = ModelSettings(model=str(model_directory), dtype="bfloat16", device="cpu")
    loaded = load_language_model(settings)
    assert loaded.head.weight.dtype == torch.bfloat16
    assert loaded.fingerprint == policy.fingerprint


def test_other_weights_have_another_fingerprint(policy: LanguageModel) -> None:
    assert make_language_model(policy.tokenizer, seed=1).fingerprint != policy.fingerprint


@pytest.mark.parametrize("part", ["embed_tokens", "layers.0.self_attn.q_proj", "layers.1.mlp.down_proj", "norm"])
def test_a_change_in_any_layer_changes_the_fingerprint(policy: LanguageModel, part: str) -> None:
    """A merged adapter leaves the embedding alone; its hidden states are others all the same."""
    changed = make_language_model(policy.tokenizer, seed=0).model
    changed.model.get_submodule(part).weight.mul_(1.5)
    assert wrap_language_model("changed", changed, policy.tokenizer).fingerprint != policy.fingerprint


def test_a_loaded_model_is_frozen_and_in_evaluation_mode(model_directory: Path) -> None:
    loaded = load_language_model(ModelSettings(model=str(model_directory)))
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


def test_end_tokens_are_the_tokenizers_and_the_generation_configurations(byte_tokenizer: Any) -> None:
    model = make_language_model(byte_tokenizer, seed=0)
    end = byte_tokenizer.eos_token_id
    assert model.end_tokens == {end}
    model.model.generation_config.eos_token_id = [40, 41]
    assert model.end_tokens == {end, 40, 41}
    model.model.generation_config.eos_token_id = None
    assert model.end_tokens == {end}


def test_the_end_of_a_chat_templates_turn_is_an_end_token() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("<end>", "<user>")
    assert make_language_model(tokenizer, seed=0).end_tokens == set(
        tokenizer.convert_tokens_to_ids(["<end>", "<user>"])
    )


def test_a_tokenizer_without_padding_pads_with_its_end_token() -> None:
    tokenizer = make_tokenizer()
    tokenizer.pad_token = None
    model = make_language_model(tokenizer, seed=0)
    assert model.tokenizer.pad_token_id == tokenizer.eos_token_id


def test_vocabularies_are_the_same_when_every_token_means_the_same(policy: LanguageModel) -> None:
    again, larger = make_tokenizer(), make_tokenizer(extra=("<x>",))
    assert same_vocabulary(policy, make_language_model(again, seed=5))
    assert not same_vocabulary(policy, make_language_model(larger, seed=5))
    assert vocabulary_hash(again) == vocabulary_hash(policy.tokenizer) != vocabulary_hash(larger)


def refused(**settings: str) -> ModelLoadError:
    with pytest.raises(ModelLoadError) as caught:
        load_language_model(ModelSettings.model_validate(settings))
    assert caught.value.hint
    return caught.value


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    assert "No model directory" in refused(model=str(tmp_path / "missing")).message


def test_a_directory_without_tokenizer_is_refused(policy: LanguageModel, tmp_path: Path) -> None:
    policy.model.save_pretrained(tmp_path)
    assert str(tmp_path) in refused(model=str(tmp_path)).message


def test_a_directory_without_weights_is_refused(policy: LanguageModel, tmp_path: Path) -> None:
    policy.tokenizer.save_pretrained(tmp_path)
    policy.model.config.save_pretrained(tmp_path)
    assert str(tmp_path) in refused(model=str(tmp_path)).message


def test_damaged_weights_are_refused(policy: LanguageModel, tmp_path: Path) -> None:
    policy.model.save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert str(tmp_path) in refused(model=str(tmp_path)).message


@pytest.mark.parametrize("device", ["warp", "cuda:77", "cpu:x"])
def test_a_device_that_is_not_there_is_refused(model_directory: Path, device: str) -> None:
    assert device in refused(model=str(model_directory), device=device).message
