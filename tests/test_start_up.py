"""What each command imports: a short one no torch, and `pad generate` nothing that only training or compiling needs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pad_cli.models import inference_only, loading
from pad_cli.models.language_model import LanguageModel, load_language_model
from pad_cli.recipe import ModelSettings
from tests.architectures import ARCHITECTURES, make_architecture
from tests.cli.test_commands import NO_TORCH, shell

UNUSED = (
    *(f"pad_cli.{floor}" for floor in ("training", "evaluation", "learning", "bench", "server")),
    *("pad_cli.world.build", "pad_cli.world.writing"),
    *("sklearn", "pandas", "scipy", "sympy", "datasets", "trl", "peft", "matplotlib", "starlette", "openai"),
    *(f"torch.{part}" for part in ("_dynamo", "_inductor", "distributed.tensor", "distributed.fsdp")),
    "transformers.trainer",
)
"""What `pad generate` has no use for."""


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "--help"],
        ["train-rm", "--help"],
        ["recipe", "show", "embedded-generate"],
        ["recipe", "check", "embedded-generate"],
        ["prefs", "--help"],
    ],
    ids=" ".join,
)
def test_a_command_that_loads_no_model_loads_no_torch(arguments: list[str]) -> None:
    done = shell(*arguments, check=NO_TORCH)
    assert done.returncode == 0
    assert done.stderr.decode().split("\n")[-2:] == ["[]", ""]


@pytest.mark.parametrize("arguments", [["inspect", "embedded/reward-model"], ["prefs", "list"]], ids=" ".join)
def test_what_is_read_of_a_reward_model_without_its_weights_is_read_without_torch(arguments: list[str]) -> None:
    done = shell(*arguments, "--json", check="print({'torch', 'transformers'} & {*sys.modules}, file=sys.stderr)")
    assert (done.returncode, done.stderr.decode()) == (0, "set()\n")
    assert b"humorous" in done.stdout


@pytest.mark.parametrize("output", [["--compare"], ["--stream"], ["--explain", "-"]], ids=" ".join)
def test_generate_imports_nothing_that_it_has_no_use_for(output: list[str]) -> None:
    found = f"print([name for name in {UNUSED!r} if name in sys.modules], file=sys.stderr)"
    done = shell("generate", "How?", "--pref", "humorous", "--quiet", *output, check=found)
    assert (done.returncode, done.stderr.decode()) == (0, "[]\n")
    assert done.stdout


LOADED_FOR_INFERENCE = """
import json, sys, torch
from pad_cli import ModelSettings, inference_only
from pad_cli.models.language_model import load_language_model
torch.set_num_threads(1)
found = {}
with inference_only():
    for directory, settings in json.load(sys.stdin):
        model = load_language_model(ModelSettings(model=directory, **settings)).model
        found[json.dumps([directory, settings])] = model(torch.tensor([[5, 9, 40, 7]])).logits
lean = "torch.distributed.tensor" not in sys.modules
import torch._dynamo, transformers
compiled = torch.compile(lambda x: 2 * x, backend="eager")(torch.ones(1)).item()
real = [hasattr(torch._dynamo, "explain"), transformers.utils.is_torch_distributed_available()]
torch.save([found, lean, compiled, real], sys.argv[1])
"""


def test_models_loaded_for_inference_only_give_the_logits_of_those_loaded_as_ever(
    byte_tokenizer: Any, tmp_path: Path
) -> None:
    """In every architecture, however it is attended and placed; and torch's compiler is there afterwards."""
    asked: list[tuple[str, dict[str, Any]]] = []
    expected = []
    for name in ARCHITECTURES:
        model = make_architecture(name, byte_tokenizer)
        model.model.save_pretrained(tmp_path / name)
        model.tokenizer.save_pretrained(tmp_path / name)
        others = [{"attention": "eager", "device": "cpu"}, {"device_map": {"": "cpu"}}] if name == "llama" else []
        asked += [(str(tmp_path / name), settings) for settings in [{"device": "cpu"}, *others]]
        expected += [model.model(torch.tensor([[5, 9, 40, 7]])).logits] * (1 + len(others))
    command = [sys.executable, "-c", LOADED_FOR_INFERENCE, str(tmp_path / "found.pt")]
    done = subprocess.run(command, input=json.dumps(asked), text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    found, lean, compiled, real = torch.load(tmp_path / "found.pt")
    for key, logits in zip(asked, expected, strict=True):
        torch.testing.assert_close(found[json.dumps(key)], logits, msg=str(key))
    assert (lean, compiled, real) == (True, 2.0, [True, True])


def test_where_models_have_been_imported_inference_only_changes_nothing() -> None:
    before = dict(sys.modules)
    with inference_only.inference_only():
        assert sys.modules == before


def test_a_name_that_the_stand_in_for_torchs_compiler_lacks_is_the_compilers_own() -> None:
    compiler = inference_only._Later("torch._dynamo", {})
    assert compiler.explain is torch._dynamo.explain
    assert not hasattr(compiler, "__file__")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_small_model_built_at_once_has_the_numbers_of_one_built_on_the_meta_device(
    architecture: str, byte_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them: the weights, and the buffers that are in no file."""
    original = make_architecture(architecture, byte_tokenizer)
    original.model.save_pretrained(tmp_path)
    original.tokenizer.save_pretrained(tmp_path)

    def numbers() -> dict[str, torch.Tensor]:
        model = load_language_model(ModelSettings(model=str(tmp_path), device="cpu")).model
        return {**dict(model.named_parameters()), **dict(model.named_buffers())}

    at_once = numbers()
    monkeypatch.setattr(loading, "_SMALL", 1)
    by_meta = numbers()
    assert at_once.keys() == by_meta.keys()
    assert [name for name, tensor in by_meta.items() if not torch.equal(tensor, at_once[name])] == []


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_a_small_model_on_a_cpu_runs_on_one_thread_and_a_larger_one_on_all(
    policy: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as smaller:
        smaller.setattr(inference_only, "_SMALL", 10)
        inference_only.spare_threads(policy)
        assert torch.get_num_threads() == 2
    inference_only.spare_threads(policy)
    assert torch.get_num_threads() == 1
