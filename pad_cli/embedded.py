"""The embedded world's models (floor 6): built once, from a seed, into `PAD_HOME`; nothing is downloaded.

    embedded/small         0.14 M parameters
    embedded/medium        0.50 M parameters, under the reward model
    embedded/large         1.5 M parameters, trained on other documents
    embedded/reward-model  the shipped recipe `embedded` on embedded/medium
    embedded/following     0.50 M parameters, trained to do what a preference in its prompt says; built when asked for
    embedded/enlarged      61 M parameters that write what `large` writes, to measure speculative decoding on

The directory is named by a hash of everything that goes in, so changed inputs build anew and never mix with old ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from pad_cli.errors import PadError, StorageError, UsageError, did_you_mean
from pad_cli.models.enlarge import enlarge
from pad_cli.models.language_model import load_language_model
from pad_cli.models.prompts import encode_answer, encode_prompt
from pad_cli.progress import bar, note, stage
from pad_cli.recipe import ModelSettings, TrainRecipe, read_recipe
from pad_cli.resources import shipped
from pad_cli.run_lock import in_turn
from pad_cli.runs import fingerprint, home, whole_directory
from pad_cli.training.pretrain import PretrainPlan, pretrain
from pad_cli.training.train import train_reward_model
from pad_cli.world.documents import Document, write_asked_documents, write_documents
from pad_cli.world.grammar import load_world

_FORMAT = 1  # raise it when the way of building changes
_TRAINED = 2  # raise it when training writes something else into a reward model
_VOCABULARY = 1792  # enough for every word of the world to be one token
_PAD, _END, _USER, _ASSISTANT, _SYSTEM = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@dataclass(frozen=True)
class _Policy:
    """A policy: its model, and what it reads."""

    plan: PretrainPlan
    seed: int
    answers: int = 12000
    glossary: int = 3000
    rate: float = 0.12


_POLICIES = {
    "large": _Policy(PretrainPlan(160, 4, 4, 6e-3, 0.05, 700), seed=2, answers=15000, glossary=0, rate=0.14),
    "medium": _Policy(PretrainPlan(96, 3, 4, 8e-3, 0.06, 1200), seed=1),
    "small": _Policy(PretrainPlan(48, 2, 2, 1e-2, 0.05, 1400), seed=1),
}
_FOLLOWER = _Policy(PretrainPlan(96, 3, 4, 8e-3, 0.06, 1350), seed=3, answers=7000, glossary=1750)
_ASKED, _SAMPLE = 14000, 50  # documents that ask it for something, and how many of them its name depends on
_WIDTH, _LAYERS = 4, 8  # of `enlarged`: times the width of `large`, and blocks more than it


def model_directory(name: str) -> Path:
    """Small language models and a reward model, built from a seed when first asked for: the directory of one.

    Raises:
        UsageError: there is no such model.
        StorageError: it cannot be written.
    """
    if name == "reward-model":
        return _reward_model()
    if name == "enlarged":
        return _enlarged()
    if name == "following":
        return _following()
    if name not in _POLICIES:
        known = [*_POLICIES, "following", "reward-model", "enlarged"]
        raise UsageError(f"No embedded model is named '{name}'.", did_you_mean(name, known))
    directory = _world_directory()
    _build(directory, [name])
    return directory / name


def build_embedded() -> None:
    """Build whatever of the embedded world is missing: the policies side by side, then the reward model."""
    _build(_world_directory(), _POLICIES)
    _reward_model()


def _world_directory() -> Path:
    """`PAD_HOME/embedded-<hash of the world's text and of how the models are built>`."""
    text = {path.name: path.read_text(encoding="utf-8") for path in sorted((shipped("data") / "world").glob("*.yaml"))}
    plans = {name: asdict(policy) for name, policy in _POLICIES.items()}
    return home() / f"embedded-{fingerprint([_FORMAT, _VOCABULARY, _CHAT_TEMPLATE, text, plans])}"


def _reward_model() -> Path:
    recipe = read_recipe("embedded")
    assert isinstance(recipe, TrainRecipe)
    key = fingerprint([_TRAINED, recipe.model_dump(exclude={"output"})])
    directory = _world_directory() / f"reward-model-{key}"
    finished = directory / "pad_config.json"
    if not finished.exists():
        with in_turn(directory):
            if not finished.exists():
                note("The embedded reward model is trained once, from the recipe 'embedded'.")
                train_reward_model(recipe.model_copy(update={"output": str(directory)}), data_table=False)
    return directory


def _following() -> Path:
    """The policy that follows preferences, built when first asked for, and not part of `build_embedded`.

    Its directory is named by what the world's is not named by: its plan, and how preferences stand in its documents.
    """
    sample = [asdict(document) for document in _asked_documents(_SAMPLE)]
    directory = _world_directory() / f"following-{fingerprint([asdict(_FOLLOWER), _ASKED, sample])}"
    _build(directory.parent, [directory.name])
    return directory


def _enlarged() -> Path:
    """The large policy, enlarged: written when first asked for, and not part of `build_embedded`."""
    directory = _world_directory() / f"enlarged-{_WIDTH}-{_LAYERS}"
    if not directory.is_dir():
        with in_turn(directory):
            if not directory.is_dir():
                _write_enlarged(directory)
    return directory


def _write_enlarged(directory: Path) -> None:
    settings = ModelSettings(model=str(model_directory("large")), dtype="float32", device="cpu")
    large = load_language_model(settings)
    note(f"Writing the enlarged policy to {directory} (once).")
    with stage("Enlarging the large policy"), whole_directory(directory) as scratch:
        enlarge(large.model, _WIDTH, _LAYERS).save_pretrained(scratch)
        large.tokenizer.save_pretrained(scratch)


def _build(directory: Path, names: Iterable[str]) -> None:
    """Train the policies that are not there yet; another process that needs one of them waits."""

    def missing() -> list[str]:
        return [name for name in names if not (directory / name).is_dir()]

    if missing():
        with in_turn(directory):
            if left := missing():
                _train_policies(directory, left)


def _train_policies(directory: Path, names: list[str]) -> None:
    """Train policies side by side, each in its own process; what is finished stays when the rest is interrupted."""
    tokenizer = directory / "tokenizer"
    if not tokenizer.is_dir():
        with stage("Building the tokenizer"):
            _build_tokenizer(tokenizer)
    note(f"Building the embedded world in {directory} (once).")
    waiting, running = list(names), dict[str, "subprocess.Popen[str]"]()
    total = sum(_policy(name).plan.steps for name in names)
    with bar(f"Training policies {', '.join(names)}", total) as progress:
        try:
            while waiting or running:
                if waiting and len(running) < (os.cpu_count() or 1):
                    name = waiting.pop(0)
                    running[name] = _start_worker(directory / name, progress.advance)
                    continue
                time.sleep(0.1)
                for name, process in list(running.items()):
                    if process.poll() is not None:
                        _check_worker(directory / name, running.pop(name))
        finally:
            for process in running.values():
                process.terminate()
                process.wait()


def _start_worker(target: Path, on_step: Callable[[], None]) -> subprocess.Popen[str]:
    """Train one policy in a process of its own, which writes one line a step; when its reader is gone, it ends too."""
    command = [sys.executable, "-m", "pad_cli.embedded", str(target)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def follow() -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for _ in lines:
                on_step()

    threading.Thread(target=follow, daemon=True).start()
    return process


def _check_worker(target: Path, process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    with process.stderr as said:
        problem = said.read().strip().splitlines() or [f"exit code {process.returncode}"]
    if process.returncode:
        raise StorageError(
            f"Building {target} failed: {problem[-1]}",
            "Free some space, or set PAD_HOME to another directory, and run again.",
        )


def _work(target: Path) -> None:
    """What a worker process does."""
    try:
        _build_policy(target)
    except PadError as error:
        sys.exit(error.message)  # its last line, which `_check_worker` repeats, would be the hint


def _build_policy(target: Path) -> None:
    """Train one policy from the tokenizer beside it, on one thread."""
    torch.set_num_threads(1)
    policy = _policy(target.name)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(target.parent / "tokenizer")
    documents = [
        (encode_prompt(tokenizer, document.prompt), encode_answer(tokenizer, document.answer))
        for document in _documents(policy)
    ]
    tokens = (len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id)
    model = pretrain(policy.plan, *tokens, documents, on_step=lambda: print("step", flush=True))
    with whole_directory(target) as scratch:
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)


def _policy(directory: str) -> _Policy:
    """What is built in the directory of that name."""
    return _POLICIES.get(directory, _FOLLOWER)


def _documents(policy: _Policy) -> list[Document]:
    documents = write_documents(
        load_world(), seed=policy.seed, answers=policy.answers, glossary=policy.glossary, rate=policy.rate
    )
    return documents + _asked_documents(_ASKED) if policy is _FOLLOWER else documents


def _asked_documents(count: int) -> list[Document]:
    return write_asked_documents(load_world(), seed=_FOLLOWER.seed, answers=count, rate=_FOLLOWER.rate)


def _build_tokenizer(target: Path) -> None:
    """A byte-level BPE tokenizer with a chat template, trained on the medium policy's documents."""
    specials = [_PAD, _END, _USER, _ASSISTANT, _SYSTEM]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (f"{d.prompt[0]['content']}\n{d.answer}" for d in _documents(_POLICIES["medium"]))
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=_PAD,
        eos_token=_END,
        additional_special_tokens=[_USER, _ASSISTANT, _SYSTEM],
    )
    wrapped.chat_template = _CHAT_TEMPLATE
    with whole_directory(target) as scratch:
        wrapped.save_pretrained(scratch)


if __name__ == "__main__":
    _work(Path(sys.argv[1]))
