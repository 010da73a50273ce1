"""`dtype: auto` is the checkpoint's own where the device is fast in it, and says so where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pad_cli.errors import ModelLoadError
from pad_cli.models.dtype import choices, choose_dtype
from pad_cli.models.language_model import LanguageModel, load_language_model, wrap_language_model
from pad_cli.recipe import ModelSettings
from tests.tiny import make_language_model

CPU = torch.device("cpu")


@pytest.fixture(params=["bfloat16", "float16"])
def narrow(request: pytest.FixtureRequest, policy: LanguageModel, tmp_path: Path) -> tuple[Path, str]:
    """A checkpoint in a dtype of 16 bits, and which."""
    model = make_language_model(policy.tokenizer, seed=0).model.to(getattr(torch, request.param))
    model.save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    return tmp_path, request.param


def test_a_cpu_that_emulates_a_dtype_gets_float32_and_says_why(
    narrow: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)  # as on a CPU without bfloat16 instructions
    directory, own = narrow
    loaded = load_language_model(ModelSettings(model=str(directory), device="cpu"))
    assert loaded.dtype == torch.float32
    assert f"{directory}: {own}, loaded as float32" in capsys.readouterr().err


def test_a_dtype_that_is_asked_for_is_taken_though_it_is_slow(
    narrow: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)  # as on a CPU without bfloat16 instructions
    directory, own = narrow
    settings = ModelSettings.model_validate({"model": str(directory), "dtype": own, "device": "cpu"})
    assert load_language_model(settings).dtype == getattr(torch, own)


@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
def test_a_cpu_that_is_held_to_older_instructions_is_taken_for_an_older_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    capabilities = {"architecture": "aarch64", "bf16": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    assert choose_dtype(torch.bfloat16, CPU).dtype == torch.bfloat16
    monkeypatch.setenv(name, "avx2")
    assert choose_dtype(torch.bfloat16, CPU).dtype == torch.float32
    monkeypatch.delenv(name)
    capabilities.update(architecture="x86_64", avx512_bf16=True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")  # as under ATEN_CPU_CAPABILITY
    assert choose_dtype(torch.bfloat16, CPU).dtype == torch.float32


def test_float32_stays_float32_and_every_choice_that_differs_has_a_reason() -> None:
    assert choose_dtype(torch.float32, CPU).dtype == torch.float32
    for dtypes in choices().values():
        assert all(bool(choice["reason"]) == (choice["dtype"] != own) for own, choice in dtypes.items())


def test_a_model_that_overflows_in_float16_says_so_and_names_other_dtypes(policy: LanguageModel) -> None:
    large = make_language_model(policy.tokenizer, seed=0).model.to(torch.float16)
    model = wrap_language_model("large", large, policy.tokenizer)
    large.model.layers[1].mlp.down_proj.weight.fill_(6e4)  # from here on: what overflows at once is refused at load
    tokens = torch.tensor([[5, 6, 7]])
    with pytest.raises(ModelLoadError, match="'large' overflows in float16") as caught:
        model.hidden_states(tokens, torch.ones_like(tokens))
    assert "bfloat16" in caught.value.hint
