"""Every causal architecture of transformers, tiny: exact logits or a refusal, as docs/architectures.md lists them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers

from pad_cli.errors import ArchitectureError
from pad_cli.models.language_model import LanguageModel, wrap_language_model
from tests.every_architecture import NAMES, UNMADE, tiny_model
from tests.exact_reading import GENERATE_DIFFERS, assert_exact, assert_greedy_is_generates

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of what libraries say of random models

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"
WRITTEN_FOR = "5.24.0"
"""The version of transformers whose architectures the page lists."""


def way(model: LanguageModel) -> str:
    """How a model is read, as the page says it."""
    if model.forward_mode.alone:
        return "row by row, from the beginning for every token"
    return "generic" if model.forward_mode.full_model else "fused"


@pytest.fixture(scope="module")
def ways() -> dict[str, str]:
    """Filled by the walk: how each architecture is read, or why it is refused."""
    return {}


def read(name: str, tokenizer: Any) -> LanguageModel | ArchitectureError:
    model = tiny_model(name)
    try:
        return wrap_language_model(name, model, tokenizer)
    except ArchitectureError as refusal:
        return refusal


@pytest.mark.parametrize("name", [name for name in NAMES if name not in UNMADE])
def test_logits_are_the_models_own_or_the_architecture_is_refused(
    name: str, byte_tokenizer: Any, ways: dict[str, str]
) -> None:
    model = read(name, byte_tokenizer)
    if isinstance(model, ArchitectureError):
        named, _, reason = model.message.partition(" cannot be steered: ")
        assert named == f"'{name}' ({name})"
        ways[name] = reason.partition(" (")[0].rstrip(".")
        return
    assert_exact(model)
    if name not in GENERATE_DIFFERS:
        assert_greedy_is_generates(model)
    ways[name] = way(model)


def table(ways: dict[str, str]) -> str:
    """The page's table: the ways by how many are read so, then what is refused, then what was not tried."""
    groups: dict[str, list[str]] = {}
    for name, how in {**ways, **UNMADE}.items():
        groups.setdefault(how, []).append(name)
    refused = [how for how in groups if how.startswith("it")]

    def order(how: str) -> tuple[bool, bool, int, str]:
        return groups[how][0] in UNMADE, how in refused, -len(groups[how]), how

    lines = ["| how | | architectures |", "|---|---|---|"]
    for how in sorted(groups, key=order):
        names = sorted(groups[how])
        said = f"not tried: {how}" if names[0] in UNMADE else f"refused: {how}" if how in refused else how
        lines.append(f"| {said} | {len(names)} | {', '.join(f'`{name}`' for name in names)} |")
    return "\n".join(lines)


@pytest.mark.skipif(transformers.__version__ != WRITTEN_FOR, reason="the page lists another version's architectures")
def test_the_page_lists_every_architecture_as_it_was_found(ways: dict[str, str]) -> None:
    if len(ways) + len(UNMADE) < len(NAMES):
        pytest.skip("only some were walked")
    assert table(ways) in PAGE.read_text(encoding="utf-8"), table(ways)
