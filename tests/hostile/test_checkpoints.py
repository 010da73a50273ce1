"""A checkpoint or a model from anybody is loaded or refused; none of its code runs, none of its claims is believed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from pad_cli.errors import CheckpointError, ModelLoadError, PadError, PreferenceError, UsageError
from pad_cli.models.adapter import Adapter
from pad_cli.models.checkpoint import load_reward_model, save_reward_model
from pad_cli.models.checkpoint_files import CONFIG, ENCODER, HEADS
from pad_cli.models.heads import PreferenceEncoder
from pad_cli.models.inspection import inspect_reward_model
from pad_cli.models.language_model import load_language_model
from pad_cli.models.publishing import push_reward_model
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.recipe import ModelSettings
from tests.cli.test_commands import pad
from tests.hostile.budget import examples, fuzzed, tried
from tests.tiny import make_reward_model

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
) | st.sampled_from([10**12, 2**31, -1, 0, 10**400, "4bit", "/etc", "../..", "a\0b", ["humorous", "Humorous", "x"]])
KEYS = [
    *("stages", "data", "environment", "metrics", "conditioning", "adapter", "backbone_quantization", "backbone"),
    *("hidden_size", "rank", "encoder_width", "encoder_texts", "principles", "calibration", "tokenizer_hash"),
]
RARE = ("alpha_pattern", "use_rslora", "auto_mapping", "base_model_name_or_path", "modules_to_save")
LORA = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}


@pytest.fixture(scope="module")
def good(policy: Any, model_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole checkpoint, with an encoder, metrics and a report."""
    directory = tmp_path_factory.mktemp("good")
    plain = make_reward_model(policy)
    encoder = PreferenceEncoder(policy.hidden_size, 8, len(plain.principles), texts=4)
    encoder.remember(torch.randn(4, policy.hidden_size), torch.tensor([0, 1, 2, -1]))
    model = PersonalizedRewardModel(policy, plain.heads, encoder.eval().requires_grad_(False))
    save_reward_model(model, directory, ModelSettings(model=str(model_directory)))
    (directory / "metrics.json").write_text('{"held_out": {"pairs": 3, "pair_accuracy": 0.5}}')
    stages = [{"name": "heads", "seconds": 1.5}]
    (directory / "report.json").write_text(json.dumps({"stages": stages, "data": {"splits": [{"name": "train"}]}}))
    return directory


@pytest.fixture
def copied(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "copied"))


def use(directory: Path, policy: Any) -> PadError | None:
    """Inspect and load; how it is refused, if it is."""
    _, inspecting = tried(lambda: inspect_reward_model(str(directory)), PadError)
    tried(lambda: pad("inspect", str(directory)), PadError)
    model, loading = tried(lambda: load_reward_model(str(directory), backbone=policy), CheckpointError, ModelLoadError)
    if model is not None:
        texts, unread = tried(lambda: [model.preference(["something else"])], PreferenceError)
        assert texts is None or model.weights(texts).isfinite().all()
        assert unread is None or model.encoder is None, "only one that claims no encoder reads no free text"
    return inspecting or loading


def changed(directory: Path, name: str, **changes: Any) -> None:
    content = json.loads((directory / name).read_text())
    (directory / name).write_text(json.dumps({**content, **changes}))


def test_the_good_one_loads(good: Path, policy: Any) -> None:
    assert use(good, policy) is None


@examples(25)
@given(
    name=st.sampled_from([CONFIG, "report.json"]),
    key=st.sampled_from(KEYS),
    value=VALUES,
)
@example(name=CONFIG, key="rank", value=10**12)
@example(name=CONFIG, key="encoder_width", value=2**31 - 1)
@example(name=CONFIG, key="encoder_texts", value=2**31 - 1)
@example(name=CONFIG, key="encoder_texts", value=None)
@example(name=CONFIG, key="hidden_size", value=True)
@example(name=CONFIG, key="rank", value=-1)
@example(name=CONFIG, key="calibration", value=float("nan"))
@example(name=CONFIG, key="principles", value=["a", 1, None])
@example(name=CONFIG, key="principles", value=["a", "A", "b"])
@example(name=CONFIG, key="principles", value=[])
@example(name=CONFIG, key="encoder_width", value=0)
@example(name=CONFIG, key="encoder_width", value=None)
@example(name=CONFIG, key="hidden_size", value=0)
@example(name=CONFIG, key="calibration", value=10**400)
@example(name=CONFIG, key="calibration", value=float("nan"))
@example(name=CONFIG, key="calibration", value=-float("inf"))
@example(name=CONFIG, key="stages", value=[1, "x"])
@example(name=CONFIG, key="environment", value=["x"])
@example(name=CONFIG, key="backbone_quantization", value="3bit")
@example(name=CONFIG, key="conditioning", value="other")
@example(name=CONFIG, key="metrics", value={"held_out": 3})
@example(name="report.json", key="stages", value=[{"seconds": "long"}])
@example(name="report.json", key="data", value=[])
def test_any_value_in_its_files_is_understood_or_refused(
    name: str, key: str, value: Any, good: Path, policy: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = Path(shutil.copytree(good, tmp_path_factory.mktemp("values") / "copied"))
    changed(directory, name, **{key: value})
    use(directory, policy)


@examples(25)
@given(
    name=st.sampled_from([CONFIG, HEADS, ENCODER, "report.json"]),
    start=st.integers(0, 400),
    cut=st.integers(0, 60),
    piece=st.binary(max_size=12),
)
@example(name=CONFIG, start=0, cut=10**6, piece=b"[" * 2000)
@example(name=CONFIG, start=0, cut=0, piece=b"\xff\xfe")
@example(name=HEADS, start=0, cut=8, piece=b"\xff" * 8)
@example(name=HEADS, start=0, cut=10**6, piece=b"")
@example(name=ENCODER, start=300, cut=10**6, piece=b"")
def test_any_bytes_in_its_files_are_understood_or_refused(
    name: str, start: int, cut: int, piece: bytes, good: Path, policy: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = Path(shutil.copytree(good, tmp_path_factory.mktemp("bytes") / "copied"))
    whole = (directory / name).read_bytes()
    (directory / name).write_bytes(whole[:start] + piece + whole[start + cut :])
    use(directory, policy)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("file", [HEADS, ENCODER])
def test_numbers_that_are_not_finite_are_refused(file: str, number: float, copied: Path, policy: Any) -> None:
    tensors = load_file(copied / file)
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.ndim > 1)
    tensors[name].flatten()[3] = number
    save_file(tensors, copied / file)
    with pytest.raises(CheckpointError, match="not finite"):
        load_reward_model(str(copied), backbone=policy)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int8, torch.bool, torch.float8_e4m3fn])
def test_other_number_formats_load_or_are_refused(dtype: torch.dtype, copied: Path, policy: Any) -> None:
    save_file({name: tensor.to(dtype) for name, tensor in load_file(copied / HEADS).items()}, copied / HEADS)
    tried(lambda: load_reward_model(str(copied), backbone=policy), CheckpointError)


@pytest.mark.parametrize("owners", [[0, 1, 2, 3], [0, 1, 2, -2]])
def test_wordings_of_principles_that_there_are_not_are_refused(owners: list[int], copied: Path, policy: Any) -> None:
    save_file({**load_file(copied / ENCODER), "owners": torch.tensor(owners)}, copied / ENCODER)
    with pytest.raises(CheckpointError, match="names principles"):
        load_reward_model(str(copied), backbone=policy)


@pytest.mark.parametrize("name", [CONFIG, HEADS])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(name: str, copied: Path) -> None:
    (copied / name).unlink()
    os.mkfifo(copied / name)
    with pytest.raises(CheckpointError, match="is no file"):
        inspect_reward_model(str(copied))


def test_a_link_is_never_pushed_as_a_file(copied: Path, tmp_path: Path) -> None:
    (tmp_path / "private").write_text("private")
    (copied / "README.md").symlink_to(tmp_path / "private")
    with pytest.raises(UsageError, match="is a link"):
        push_reward_model(str(copied), "owner/name")


@fuzzed
@given(
    changes=st.dictionaries(
        st.sampled_from([*LORA, *RARE]) | st.text(max_size=5),
        VALUES,
        max_size=3,
    )
)
@example(changes={"alpha_pattern": {"(.*)*x": 1}})
@example(changes={"alpha_pattern": {"(a|a)*(a|a)*$": 1}})
@example(changes={"lora_alpha": 10**400})
@example(changes={"lora_alpha": float("nan")})
@example(changes={"auto_mapping": {"base_model_class": "os", "parent_library": "os"}})
@example(changes={"base_model_name_or_path": "../../etc"})
def test_any_adapter_configuration_is_understood_or_refused(
    changes: dict[str, Any], policy: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("adapter")
    (directory / "adapter_config.json").write_text(json.dumps({**LORA, **changes}))
    path = "base_model.model.model.layers.0.self_attn.q_proj"
    factors = {f"{path}.lora_A.weight": torch.zeros(2, 32), f"{path}.lora_B.weight": torch.zeros(32, 2)}
    save_file(factors, directory / "adapter_model.safetensors")
    adapter, _ = tried(lambda: Adapter.load(directory, policy.model), CheckpointError)
    if adapter is not None:
        adapter.remove_hooks()


@pytest.fixture
def model(model_directory: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_directory, tmp_path / "model"))


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_that_comes_with_a_model_never_runs_and_nobody_is_asked(
    file: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Evil: pass\n")
    classes = {
        "AutoConfig": "evil.Evil",
        "AutoModelForCausalLM": "evil.Evil",
        "AutoTokenizer": ["evil.Evil", "evil.Evil"],
    }
    changed(model, file, auto_map=classes, model_type="evil", tokenizer_class="Evil")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked whether code may run"))
    tried(lambda: load_language_model(ModelSettings(model=str(model), device="cpu")), ModelLoadError)
    assert not (tmp_path / "ran").exists()


class Evil:
    """What a pickle may do when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (self.path,))


def test_weights_in_a_pickle_are_refused_unopened(model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    with pytest.raises(ModelLoadError, match="safetensors"):
        load_language_model(ModelSettings(model=str(model), device="cpu"))
    assert not (tmp_path / "ran").exists()


def test_safe_weights_in_a_pickle_are_refused_too(model: Path) -> None:
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match="safetensors"):
        load_language_model(ModelSettings(model=str(model), device="cpu"))


@examples(12)
@given(
    file=st.sampled_from(["config.json", "tokenizer.json", "tokenizer_config.json"]),
    key=st.sampled_from(["hidden_size", "num_attention_heads", "vocab_size", "model_type", "model", "eos_token", "x"]),
    value=VALUES.filter(lambda value: not isinstance(value, int) or abs(value) < 10**6),
)
@example(file="config.json", key="num_attention_heads", value=0)
@example(file="config.json", key="hidden_size", value=-1)
@example(file="config.json", key="hidden_size", value="wide")
@example(file="config.json", key="model_type", value=[])
@example(file="tokenizer.json", key="model", value={"type": "BPE"})
@example(file="tokenizer_config.json", key="eos_token", value=7)
def test_a_damaged_model_is_loaded_or_refused(
    file: str, key: str, value: Any, model_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = Path(shutil.copytree(model_directory, tmp_path_factory.mktemp("damaged") / "model"))
    changed(directory, file, **{key: value})
    tried(lambda: load_language_model(ModelSettings(model=str(directory), device="cpu")), ModelLoadError)
