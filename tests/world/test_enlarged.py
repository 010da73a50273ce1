"""`embedded/enlarged` is `embedded/large` again, only larger; here `large` is a random model, so nothing is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pad_cli.models.language_model import LanguageModel, load_language_model
from pad_cli.recipe import ModelSettings
from pad_cli.world import shipped_models
from pad_cli.world.shipped_models import model_directory


@pytest.fixture
def place(policy: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty `PAD_HOME`; the installation has a random model as `large`, and nothing else."""
    large = tmp_path / "package" / "shipped" / "data" / "embedded" / "large"
    policy.model.save_pretrained(large)
    policy.tokenizer.save_pretrained(large)
    monkeypatch.setattr("pad_cli.system.resources._PACKAGE", tmp_path / "package")
    monkeypatch.setenv("PAD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@torch.no_grad()
def written(model: LanguageModel) -> list[int]:
    prompt = torch.tensor([[40, 12, 33, 8]])
    answer: list[int] = model.model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=40, eos_token_id=None
    )[0].tolist()
    return answer


def test_it_writes_what_large_writes_with_the_same_tokenizer(place: Path) -> None:
    large, enlarged = (load_language_model(ModelSettings(model=f"embedded/{name}")) for name in ("large", "enlarged"))
    assert written(enlarged) == written(large)
    assert len(set(written(large))) > 10
    assert enlarged.tokenizer.get_vocab() == large.tokenizer.get_vocab()
    assert enlarged.tokenizer.chat_template == large.tokenizer.chat_template
    assert enlarged.end_tokens == large.end_tokens
    assert enlarged.hidden_size == 4 * large.hidden_size
    assert enlarged.model.config.num_hidden_layers == 8 + large.model.config.num_hidden_layers
    assert enlarged.model.dtype == torch.float32


def test_it_is_written_once_into_the_home_on_first_use(place: Path) -> None:
    model_directory("large")
    assert not place.exists()
    directory = model_directory("enlarged")
    assert {path.name for path in place.iterdir()} == {"locks", directory.name}
    before = {path: path.stat().st_mtime_ns for path in [directory, *directory.iterdir()]}
    assert model_directory("enlarged") == directory
    assert {path: path.stat().st_mtime_ns for path in [directory, *directory.iterdir()]} == before


def test_another_large_policy_is_enlarged_anew(place: Path, other_policy: LanguageModel) -> None:
    first = model_directory("enlarged")
    other_policy.model.save_pretrained(model_directory("large"))
    assert model_directory("enlarged") != first


def test_an_interrupted_writing_leaves_nothing_behind(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shipped_models, "enlarge", interrupt)
        with pytest.raises(KeyboardInterrupt):
            model_directory("enlarged")
    assert [path.name for path in place.iterdir()] == ["locks"]
    assert (model_directory("enlarged") / "model.safetensors").is_file()
