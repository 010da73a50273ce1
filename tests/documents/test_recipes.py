"""What a document shows of a recipe is a part of a good one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pad_cli.errors import RecipeError
from pad_cli.principles import load_principles
from pad_cli.recipe import load_recipe, recipe_text
from tests.documents.pages import BLOCKS, Block

_WHOLE = ("embedded", "embedded-eval", "embedded-generate", "embedded-sweep")
"""Recipes that a part is put into, one of each kind that documents show."""


def in_its_place(content: Any) -> dict[str, Any]:
    """What a block shows, under the key where it stands."""
    first = next(iter(content[0] if isinstance(content, list) else content))
    if first == "benchmark":
        return {"benchmarks": content}
    return {"data": {"train": content}} if first == "path" else dict(content)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=str)
def test_the_keys_and_values_fit_a_recipe_or_a_file_of_principles(block: Block, tmp_path: Path) -> None:
    if block.text.startswith("# principles.yaml\n"):
        path = tmp_path / "principles.yaml"
        path.write_text(block.text, encoding="utf-8")
        assert load_principles(path)
        return
    shown = in_its_place(yaml.safe_load(block.text))
    problems = []
    for name in _WHOLE:
        whole = yaml.safe_load(recipe_text(name))
        if shown.get("kind", whole["kind"]) != whole["kind"]:
            continue
        try:
            load_recipe({**whole, **shown})
            return
        except RecipeError as error:
            problems.append(str(error))
    pytest.fail("\n".join(problems))
