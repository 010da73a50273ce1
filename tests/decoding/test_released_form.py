"""The reward model in its authors' released form, from recipe to answer, against their algorithm written plainly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from pad_cli.cli.main import app
from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import PreferenceError, UsageError
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_prompt
from pad_cli.models.reward_model import PromptRewardModel
from pad_cli.recipe import DecodingSettings
from pad_cli.records import as_messages
from tests.agreement import alone, assert_agree
from tests.decoding.conftest import PROMPTS
from tests.token_prompts import generate_ids

GUIDELINES = (
    "[Guidelines] Your task is to generate response by considering the following principle. "
    "[Principles] {} [Instruction] {}"
)
HOW = DecodingSettings(
    guidance_weight=0.8, reward_ngram=0, max_new_tokens=12, policy_reads_preference=True, batch_size=4
)


def dense_head(size: int) -> torch.nn.Linear:
    """Near the identity, as such a head is after training."""
    generator = torch.Generator().manual_seed(5)
    head = torch.nn.Linear(size, size).requires_grad_(False)
    head.weight.copy_(torch.eye(size) + 0.3 * torch.randn(size, size, generator=generator))
    head.bias.copy_(0.3 * torch.randn(size, generator=generator))
    return head


def authors(policy: LanguageModel, model: PromptRewardModel, prompt: str, limit: int) -> tuple[int, ...]:
    """Their decoder: both models read everything again for each token; rewards are relative over ten candidates."""
    tokens = encode_prompt(policy.tokenizer, as_messages(prompt))
    start = len(tokens)
    while len(tokens) < start + limit:
        read = torch.tensor([tokens])
        logits, candidates = policy.model(read).logits[0, -1].topk(10)
        state = model.backbone.model.get_decoder()(read).last_hidden_state[0, -1]
        theirs = model.backbone.model.lm_head(model.head(state))[candidates]
        rewards = theirs.log_softmax(-1) - logits.log_softmax(-1)
        tokens.append(int(candidates[(0.8 * rewards + logits).argmax()]))
        if tokens[-1] in policy.end_tokens:
            break
    return tuple(tokens[start:])


@pytest.mark.parametrize("backbone", ["another model", "the policy"])
def test_the_answers_are_those_of_the_authors_algorithm(
    backbone: str, stopping_policy: LanguageModel, other_policy: LanguageModel
) -> None:
    """Their own algorithm never stops early; apart from that it is theirs, batched and cached."""
    below = other_policy if backbone == "another model" else stopping_policy
    model = PromptRewardModel(below, dense_head(below.hidden_size))
    engine = PadEngine(stopping_policy, model)
    assert engine.path(HOW) == ("separate" if backbone == "another model" else "paired")
    texts = ("harmless", "humor", "brief, kind", "harmless, humor") * 2
    preferences = [model.preference([text]) for text in texts[: len(PROMPTS)]]
    answers = engine.generate(PROMPTS, preferences, HOW)
    wrapped = [
        GUIDELINES.format(" and ".join(preference.texts), prompt)
        for prompt, preference in zip(PROMPTS, preferences, strict=True)
    ]
    expected = [authors(stopping_policy, model, prompt, 12) for prompt in wrapped]
    assert_agree(answers, expected, alone(engine, PROMPTS, preferences, HOW))
    assert len({answer.token_ids for answer in answers}) > 3


def test_fused_is_refused_and_the_other_paths_agree(policy: LanguageModel) -> None:
    """Here the policy does not read the preference, so the two prompts differ in one forward of twice the rows."""
    model = PromptRewardModel(policy, dense_head(policy.hidden_size))
    engine, how = PadEngine(policy, model), HOW.model_copy(update={"policy_reads_preference": False})
    preferences = [model.preference(["humor"])] * len(PROMPTS)
    paired = engine.generate(PROMPTS, preferences, how.model_copy(update={"path": "paired"}))
    separate = engine.generate(PROMPTS, preferences, how.model_copy(update={"path": "separate"}))
    assert_agree(separate, paired, alone(engine, PROMPTS, preferences, how))
    assert engine.generate(PROMPTS, preferences, HOW) != paired
    with pytest.raises(UsageError, match="fused"):
        engine.generate(PROMPTS, preferences, how.model_copy(update={"path": "fused"}))


def test_token_ids_are_refused_because_the_preference_is_text(policy: LanguageModel) -> None:
    model = PromptRewardModel(policy, dense_head(policy.hidden_size))
    with pytest.raises(UsageError, match="as text"):
        generate_ids(PadEngine(policy, model), [[5, 6]], [model.preference(["humor"])], HOW)


def test_the_shipped_recipe_answers_with_a_checkpoint_of_their_layout(
    policy: LanguageModel, other_policy: LanguageModel, model_directory: Path, tmp_path: Path
) -> None:
    """The same recipe that names their checkpoints, pointed at two tiny ones that have the same files and keys."""
    other_policy.model.save_pretrained(tmp_path)
    other_policy.tokenizer.save_pretrained(tmp_path)
    head = dense_head(other_policy.hidden_size)
    save_file(
        {"v_head.summary.weight": head.weight, "v_head.summary.bias": head.bias}, tmp_path / "value_head.safetensors"
    )
    command = ["generate", "Hi", "--recipe", "official-llama3", "--policy", str(model_directory), "--pref", "humor"]
    settings = ["--set", "policy.dtype=float32", "--max-new-tokens", "12", "--weight", "0.8", "--json"]
    done = CliRunner().invoke(app, [*command, "--reward-model", str(tmp_path), *settings])
    assert done.exit_code == 0, done.output
    model = PromptRewardModel(other_policy, head)
    expected = authors(policy, model, GUIDELINES.format("humor", "Hi"), 12)
    request = alone(PadEngine(policy, model), ["Hi"], [model.preference(["humor"])], HOW)
    assert_agree([expected], [json.loads(done.stdout.strip().splitlines()[-1])["text"]], request)


def test_a_weight_cannot_be_said_in_their_prompt(policy: LanguageModel) -> None:
    model = PromptRewardModel(policy, dense_head(policy.hidden_size))
    with pytest.raises(PreferenceError):
        PadEngine(policy, model).preference(["humor=0.5"])
