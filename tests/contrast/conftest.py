"""A teacher for tests: the embedded policy that follows preferences, which answers in sentences."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pad_cli.contrast.source import ContrastOptions
from pad_cli.models.language_model import LanguageModel, load_language_model
from pad_cli.recipe import ModelSettings
from pad_cli.registry import resolve_model

STYLES = ("humorous", "formal", "concise")
TEMPLATE = (
    "{% set asked = namespace(text='') %}{% for m in messages %}"
    "{% if m['role'] == 'system' %}{% set asked.text = ' ' + m['content'] %}"
    "{% else %}<|{{ m['role'] }}|>{{ m['content'] }}{{ asked.text if m['role'] == 'user' else '<|end|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""The embedded policy reads "Write in this style: ..." behind the question: there its system message goes, too."""


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    directory = tmp_path_factory.mktemp("teacher") / "model"
    shutil.copytree(resolve_model("embedded/following"), directory)
    (directory / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return load_language_model(ModelSettings(model=str(directory), device="cpu"))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAD_HOME", str(tmp_path / "home"))
    entries = [f"{name}:\n  instruction: 'Write in this style: {name}'\n" for name in STYLES]
    entries[1] += "  opposite: 'Write in this style: humorous, concise'\n  wordings: [in a suit]\n"
    Path("principles.yaml").write_text("".join(entries), encoding="utf-8")
    topics = (
        "chess",
        "bread",
        "sailing",
        "cheese",
        "pottery",
        "gardening",
        "cycling",
        "tea",
        "yoga",
        "poetry",
        "chemistry",
        "jazz",
    )
    rows = [{"prompt": f"{words} {topic}?"} for topic in topics for words in ("What is", "How do I start with")]
    Path("prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def options(**changed: Any) -> ContrastOptions:
    return ContrastOptions.model_validate({"prompts": "prompts.jsonl", "limit": 12, "batch_size": 16, **changed})
