"""Every command that a document shows is one that exists, with the options and the recipe keys that it shows."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

import pad_cli
from pad_cli.cli.main import app
from pad_cli.cli.options import default_recipe
from pad_cli.recipe import read_recipe, shipped_recipes
from tests.documents.pages import BLOCKS, COMMANDS, PAGES, ROOT, Block, Command, outside_of_fences

_OWN = re.compile(r"(?<!`)`(pad [a-z][^`]*)`(?!`)")  # in a line of text
_RECIPES = {
    "train-rm": "real-local",
    "eval": "embedded-eval",
    "sweep": "embedded-sweep",
    "reproduce": "embedded-reproduce",
    "bench": "embedded-bench",
}
"""A command's kind of recipe to one of that kind; every other command takes one of kind generate."""
_OTHERS = {"echo", "export", "curl", "vllm", "hf"}
"""Programs that are not ours, and of which nothing can be checked here."""


def parsed(words: list[str]) -> Any:
    """The context of a `pad` command; what is wrong with it is raised."""
    group = typer.main.get_command(app)
    context = group.make_context("pad", list(words))
    name, command, rest = group.resolve_command(context, words)
    while hasattr(command, "resolve_command"):
        context = command.make_context(name, list(rest), parent=context)
        name, command, rest = command.resolve_command(context, rest)
    return command.make_context(name, list(rest), parent=context)


def check_pad(words: list[str]) -> None:
    """It parses, and the recipe that it changes is a good one of the kind that it takes."""
    if words in (["--help"], ["--version"]):
        return
    context = parsed(words)
    overrides, recipe = context.params.get("overrides"), context.params.get("recipe")
    if "recipe" not in context.params or context.command_path.startswith("pad recipe"):
        return
    recipe = recipe or default_recipe(context.params.get("policy"))
    name = "train-rm" if context.command_path == "pad pairs make" else context.info_name
    kind = name if name in _RECIPES else "generate"
    shipped = shipped_recipes()
    own = recipe not in shipped  # a file that the reader writes
    read = read_recipe(_RECIPES.get(kind, "embedded-generate") if own else recipe, overrides or [])
    assert read.kind == kind


def check_script(words: list[str]) -> None:
    """A script of the repository, and its options."""
    script = ROOT / words[0]
    text = script.read_text(encoding="utf-8")
    for option in (word.partition("=")[0] for word in words[1:] if word.startswith("--")):
        name = option.removeprefix("--").replace("-", "_")
        assert f'"{option}"' in text or re.search(rf"^    {name}: Annotated", text, re.MULTILINE), option


def check_installed(words: list[str]) -> None:
    """The extras of this package that are asked for."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for asked in re.findall(r"(?:^|\s)(?:\.|pad-cli)\[(.+?)\]", " ".join(words)):
        assert set(asked.split(",")) <= extras.keys()


def check(words: list[str]) -> None:
    """Whatever of a command can be checked without running it."""
    program, *rest = words
    if "pad_cli" in rest and rest[rest.index("pad_cli") - 1] == "-m":
        check_pad(rest[rest.index("pad_cli") + 1 :])
    elif program == "pad":
        check_pad(rest)
    elif program == "make":
        assert re.search(rf"^{rest[0]}:.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    elif program == "pip" or (program == "python" and rest[:2] == ["-m", "pip"]):
        check_installed(rest)
    elif program == "python":
        check_script(rest)
    else:
        assert program in _OTHERS, f"no test knows the program {program}"


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_every_command_exists_with_its_options_and_recipe_keys(command: Command) -> None:
    check(list(command.words))


def test_what_is_run_is_ours() -> None:
    """Other programs need a reason above their block why the tests only read it."""
    for command in COMMANDS:
        assert command.block.unrun or command.words[0] in ("pad", "python"), f"{command}: say why it is not run"


def test_the_documents_show_commands() -> None:
    assert len(COMMANDS) > 60
    assert sum(not command.block.unrun for command in COMMANDS) > 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_within_a_text_exist_with_their_options(page: Path) -> None:
    for line in outside_of_fences(page):
        for text in _OWN.findall(line):
            check_mentioned(text.split()[1:])


def check_mentioned(words: list[str]) -> None:
    """A command's name with some of its options; what it needs may be missing."""
    command = typer.main.get_command(app)
    while words and hasattr(command, "get_command"):
        found = command.get_command(typer.Context(command), words[0])
        assert found is not None, words
        command, words = found, words[1:]
    known = {name for parameter in command.params for name in parameter.opts} | {"--help", "--version"}
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_scripts_within_a_text_exist_with_their_options(page: Path) -> None:
    for line in outside_of_fences(page):
        for text in re.findall(r"`(?:python )?(benchmarks/[^`]+)`", line):
            check_script(text.split())


def test_commands_in_the_comments_of_recipes_exist() -> None:
    found = [
        line.lstrip("# ").split("  #")[0]
        for path in shipped_recipes().values()
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.match(r"#\s+pad ", line)
    ]
    assert found
    for text in found:
        check_pad(shlex.split(text)[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_command_hides_outside_of_fences(page: Path) -> None:
    hidden = [line for line in outside_of_fences(page) if re.match(r"    (\$ )?(pad|python|pip|make|curl) ", line)]
    assert hidden == []


def of(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


@pytest.mark.parametrize("block", of("python"), ids=str)
def test_python_compiles_and_imports_what_there_is(block: Block) -> None:
    compile(block.text, str(block), "exec")
    for line in re.findall(r"^from pad_cli import (.+)$", block.text, re.MULTILINE):
        assert set(line.split(", ")) <= set(pad_cli.__all__)


@pytest.mark.parametrize("block", of("json"), ids=str)
def test_rows_are_json(block: Block) -> None:
    for line in block.text.splitlines():
        assert isinstance(json.loads(line), dict)
