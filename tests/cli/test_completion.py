"""What a shell offers, asked as bash asks: fast, without torch, silent on errors."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pad_cli.errors import RecipeError
from pad_cli.recipe import GenerateRecipe, field_keys, read_recipe
from pad_cli.registry import SCORERS
from pad_cli.world.shipped_models import model_directory

TRAINED = {"helpful", "harmless", "humorous", "expert", "informative", "creative"}


@pytest.fixture(autouse=True)
def _at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with a profile, a recipe and a reward model, and an empty PAD_HOME."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAD_HOME", str(tmp_path / "home"))
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "me.yaml").write_text("weights: {concise: 1.0}\n")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "mine.yaml").write_text((read_path("embedded-eval")).read_text())
    (tmp_path / "my-rm").mkdir()
    (tmp_path / "my-rm" / "pad_config.json").write_text(json.dumps({"principles": ["terse", "literary"]}))


def read_path(name: str) -> Path:
    from pad_cli.recipe import find_recipe

    return find_recipe(name)


def offered(*words: str) -> set[str]:
    """What bash is offered for the last word; the process must not have imported torch, nor say anything else."""
    program = (
        "import sys\n"
        "sys.argv = ['pad']\n"
        "from pad_cli.cli.main import main\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    variables = {"_PAD_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **variables}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "[]\n"), done.stderr
    return set(done.stdout.splitlines())


def test_principles_and_profiles_complete_without_a_reward_model_on_the_line() -> None:
    assert offered("pad", "generate", "x", "--pref", "") >= TRAINED | {"@me"}
    assert offered("pad", "generate", "x", "--pref", "hum") == {"humorous"}


def test_principles_are_those_of_the_reward_model_on_the_line() -> None:
    found = offered("pad", "generate", "x", "--reward-model", "my-rm", "--pref", "")
    assert found == {"terse", "literary", "@me"}


def test_principles_are_those_of_the_embedded_reward_model() -> None:
    config = json.loads((model_directory("reward-model") / "pad_config.json").read_text())
    assert offered("pad", "prefs", "test", "") == {*config["principles"], "@me"}


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("generate", "x", "--pref", "@", "m"), {"@me"}),
        (("generate", "x", "--pref", "@", "me", "--temp"), {"--temperature"}),
        (("generate", "x", "--pref", "=", "hum"), {"humorous"}),
        (("generate", "x", "--set", "decoding.c"), {"decoding.candidates=", "decoding.candidates=10"}),
        (("generate", "x", "--set", "decoding.path", "=", "fu"), {"fused"}),
        (("generate", "x", "--set", "decoding.path", "="), {"auto", "fused", "paired", "separate"}),
        (("eval", "deep/mine.yaml", "--set", "scorers.0.scorer", "=", "on"), {"on_topic"}),
        (("eval", "deep/mine.yaml", "--set", "methods.0.method", "=", "best"), {"best-of-n"}),
        (("generate", "x", "--recipe", "emb"), {"embedded-generate"}),
        (("train-rm", "re"), {"real-local"}),
        (("recipe", "show", "gem"), {"gemma-270m"}),
        (("prefs", "show", "@m"), {"@me"}),
        (("doc",), {"doctor"}),
        (("generate", "x", "--temp"), {"--temperature"}),
    ],
)
def test_bash_is_offered_what_it_has_to_insert(words: tuple[str, ...], found: set[str]) -> None:
    assert offered("pad", *words) == found


@pytest.mark.parametrize(
    "words",
    [
        ("generate", "x", "--recipe", "nowhere.yaml", "--set", "d"),
        ("generate", "x", "--recipe", "nowhere.yaml", "--pref", ""),
        ("eval", "nowhere/"),
    ],
)
def test_what_is_wrong_on_the_line_is_not_said_while_it_is_typed(words: tuple[str, ...]) -> None:
    assert offered("pad", *words) <= TRAINED | {"@me"}


def test_bash_itself_completes(tmp_path: Path) -> None:
    """The script that --show-completion prints, in a real bash, as readline would call it."""
    (tmp_path / "pad").write_text(f"#!{sys.executable}\nfrom pad_cli.cli.main import main\nmain()\n")
    (tmp_path / "pad").chmod(0o755)
    script = (
        "source <(_PAD_COMPLETE=source_bash pad)\nCOMP_WORDS=(pad prefs show @ m); COMP_CWORD=4\n_pad_completion pad\n"
        'echo "${COMPREPLY[*]}"'
    )
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env={**os.environ, "PATH": path})
    assert (done.returncode, done.stdout, done.stderr) == (0, "@me\n", "")


class _ForbiddenByAnother(Exception):  # noqa: N818  # no error: fields may exclude each other
    pass


def _read(name: str, override: str) -> None:
    try:
        read_recipe(name, [override])
    except RecipeError as error:
        if not any(words in error.message for words in ("no such key", "input should be", "no place")):
            raise _ForbiddenByAnother from error
        raise


@pytest.mark.parametrize("name", ["embedded", "embedded-generate", "embedded-eval", "embedded-sweep", "embedded-bench"])
def test_every_offered_key_can_be_set_to_every_offered_value(name: str) -> None:
    for key, field in field_keys(read_recipe(name)).items():
        assert field.description, key
        for value in field.values:
            with contextlib.suppress(_ForbiddenByAnother):
                _read(name, f"{key}={value}")


def test_scorers_are_offered_where_a_scorer_stands() -> None:
    keys = field_keys(read_recipe("embedded-eval"))
    assert keys["scorers.0.scorer"].values == tuple(SCORERS.names())
    assert not any(key == "kind" for key in keys)
    assert set(keys) > {"guidance_weights", "benchmarks.0.benchmark", "policies.small.model"}
    assert isinstance(read_recipe("embedded-generate"), GenerateRecipe)
