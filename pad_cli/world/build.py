"""`make embedded`: train the embedded models anew and write them to `data/embedded/`, with a manifest.

Policies are trained in float32 and written in float16, with `"dtype": "float32"` in their configuration: every machine
loads the same float32 weights. The reward model is trained on the medium policy as it was written.

`manifest.json` says what the models were made from (`made_from`), with what, and the SHA-256 of every file.
`stale_parts` compares it with what is there now.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import chdir
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from pad_cli.models.checkpoint_files import FORMAT_VERSION
from pad_cli.models.prompts import encode_answer, encode_prompt
from pad_cli.pairs import load_pairs
from pad_cli.recipe import TrainRecipe, read_recipe, shipped_recipes
from pad_cli.records import PairSplit
from pad_cli.system.progress import bar
from pad_cli.system.resources import shipped
from pad_cli.system.runs import environment, fingerprint, whole_directory, write_json
from pad_cli.training.train import train_reward_model
from pad_cli.world.grammar import load_world
from pad_cli.world.pretrain import PretrainPlan, pretrain
from pad_cli.world.writing import Document, write_documents, write_preference_documents

MANIFEST = "manifest.json"
_TRAINING = 1  # raise it when training comes to write other weights: `made_from` sees only what training reads
_VOCABULARY = 1792  # enough for every word of the world to be one token
_PAD, _END, _USER, _ASSISTANT, _SYSTEM = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@dataclass(frozen=True)
class Policy:
    """A policy: its model, and how many documents it is trained on (see `write_documents`); `asked` of preferences."""

    plan: PretrainPlan
    seed: int
    answers: int = 12000
    glossary: int = 3000
    rate: float = 0.12
    asked: int = 0


POLICIES = {
    "large": Policy(PretrainPlan(160, 4, 4, 6e-3, 0.05, 700), seed=2, answers=15000, glossary=0, rate=0.14),
    "following": Policy(PretrainPlan(96, 3, 4, 8e-3, 0.06, 1350), seed=3, answers=7000, glossary=1750, asked=14000),
    "medium": Policy(PretrainPlan(96, 3, 4, 8e-3, 0.06, 1200), seed=1),
    "small": Policy(PretrainPlan(48, 2, 2, 1e-2, 0.05, 1400), seed=1),
}


def build() -> None:
    """Train every policy, each in its own process on one thread, then the reward model; the manifest comes last."""
    directory = shipped("data") / "embedded"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    tokenizer = build_tokenizer()
    workers = ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,))
    with bar(f"Training policies {', '.join(POLICIES)}", len(POLICIES)) as progress, workers:
        training = [
            workers.submit(build_policy, policy, tokenizer, directory / name) for name, policy in POLICIES.items()
        ]
        for done in as_completed(training):
            done.result()
            progress.advance()
    with chdir(directory):  # so that the checkpoint holds no path of this machine
        train_reward_model(_recipe().model_copy(update={"output": "reward-model"}), data_table=False)
    manifest = {"made_from": made_from(), "made_with": environment(), "sha256": _hashes(directory)}
    write_json(directory / MANIFEST, manifest)


def stale_parts() -> list[str]:
    """The names of sources and shipped files that are not as the manifest says; none when they belong together."""
    directory = shipped("data") / "embedded"
    path = directory / MANIFEST
    manifest = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    before = {**manifest.get("made_from", {}), **manifest.get("sha256", {})}
    now = {**made_from(), **_hashes(directory)}
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def made_from() -> dict[str, Any]:
    """Hashes of everything that the models are trained from, each under the name of what it is a hash of."""
    recipe = _recipe()
    data = load_pairs(recipe.data, recipe.seed, recipe.heads.principles)
    splits = [PairSplit("train", data.train, data.texts), *data.validation]
    world = sorted((shipped("data") / "world").glob("*.yaml"))
    contents = [(split.name, split.texts, [pair.content() for pair in split.pairs]) for split in splits]
    return {
        "recipes/embedded.yaml": _sha256(shipped_recipes()["embedded"]),
        **{f"data/world/{path.name}": _sha256(path) for path in world},
        "resolved recipe": fingerprint(recipe.model_dump(exclude={"output", "compare"})),
        "preference pairs": fingerprint(contents),
        **{f"plan of {name}": fingerprint(asdict(policy)) for name, policy in POLICIES.items()},
        **{f"documents of {name}": fingerprint(write_training_documents(each)) for name, each in POLICIES.items()},
        "tokenizer": fingerprint([_VOCABULARY, _PAD, _END, _USER, _ASSISTANT, _SYSTEM]),
        "chat template": fingerprint(_CHAT_TEMPLATE),
        "format of training": _TRAINING,
        "format of checkpoints": FORMAT_VERSION,
    }


def build_policy(policy: Policy, tokenizer: PreTrainedTokenizerFast, target: Path) -> None:
    """Train one policy and write it, in float16, with its tokenizer."""
    documents = [
        (encode_prompt(tokenizer, document.prompt), encode_answer(tokenizer, document.answer))
        for document in write_training_documents(policy)
    ]
    model = pretrain(policy.plan, len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id, documents)
    with whole_directory(target) as scratch:
        # The weights are halved, the model is not: `save_pretrained` notes its dtype, which is the one to load.
        halved = {name: weight.detach().half() for name, weight in model.named_parameters()}
        model.save_pretrained(scratch, state_dict=halved)
        tokenizer.save_pretrained(scratch)


def write_training_documents(policy: Policy) -> list[Document]:
    world = load_world()
    plain = write_documents(world, seed=policy.seed, answers=policy.answers, glossary=policy.glossary, rate=policy.rate)
    return plain + write_preference_documents(world, seed=policy.seed, answers=policy.asked, rate=policy.rate)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with a chat template, trained on the medium policy's documents."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=[_PAD, _END, _USER, _ASSISTANT, _SYSTEM],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    documents = write_training_documents(POLICIES["medium"])
    tokenizer.train_from_iterator((f"{d.prompt[0]['content']}\n{d.answer}" for d in documents), trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=_PAD,
        eos_token=_END,
        additional_special_tokens=[_USER, _ASSISTANT, _SYSTEM],
    )
    wrapped.chat_template = _CHAT_TEMPLATE
    return wrapped


def _recipe() -> TrainRecipe:
    recipe = read_recipe(str(shipped_recipes()["embedded"]))
    assert isinstance(recipe, TrainRecipe)
    return recipe


def _hashes(directory: Path) -> dict[str, str]:
    """SHA-256 of every file below, but for the manifest."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(directory).as_posix(): _sha256(path) for path in files}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    build()
