"""Shared fixtures: a byte tokenizer and tiny models built from configurations; no network."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("pad", deadline=None, suppress_health_check=[HealthCheck.too_slow])  # speed is never tested
settings.load_profile("pad")
os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported: without it each miss is tried for a minute


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def local(self: socket.socket, address: Any) -> None:
        assert self.family == getattr(socket, "AF_UNIX", None), "a test tried to reach the network"
        connect(self, address)  # to another process of this machine

    monkeypatch.setattr(socket.socket, "connect", local)


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests never read or write the user's cache, nor do the fixtures of a session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAD_HOME", str(tmp_path_factory.getbasetemp() / "home"))
        yield


@pytest.fixture(autouse=True)
def _talkative() -> None:
    """A command run with --quiet in one test does not silence the next."""
    from pad_cli.system.progress import set_quiet

    set_quiet(False)


@pytest.fixture(scope="session", autouse=True)
def _threads() -> None:
    """One, unless PAD_TEST_THREADS says how many: results are the same with several, up to rounding."""
    import torch

    torch.set_num_threads(int(os.environ.get("PAD_TEST_THREADS", "1")))


@pytest.fixture(scope="session")
def byte_tokenizer() -> Any:
    """A tokenizer whose tokens are bytes, with a chat template."""
    from tests.tiny import make_tokenizer

    return make_tokenizer()


@pytest.fixture(scope="session")
def policy(byte_tokenizer: Any) -> Any:
    """A tiny random Llama."""
    from tests.tiny import make_language_model

    return make_language_model(byte_tokenizer, seed=0)


@pytest.fixture(scope="session")
def other_policy(byte_tokenizer: Any) -> Any:
    """Another tiny random Llama of another size, with the same tokenizer."""
    from tests.tiny import make_language_model

    return make_language_model(byte_tokenizer, seed=1, hidden_size=24)


@pytest.fixture
def reward_model(policy: Any) -> Any:
    """Random preference heads for `humorous`, `formal` and `concise` on the tiny policy."""
    from tests.tiny import make_reward_model

    return make_reward_model(policy)


@pytest.fixture(scope="session")
def model_directory(policy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny policy on disk, as a user's local model."""
    directory = tmp_path_factory.mktemp("model")
    policy.model.save_pretrained(directory)
    policy.tokenizer.save_pretrained(directory)
    return directory


def pytest_collection_finish() -> None:
    """Leave what was imported out of every garbage collection, of which the code under test asks for many."""
    gc.collect()
    gc.freeze()
