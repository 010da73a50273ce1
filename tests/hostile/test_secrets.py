"""A key in the environment is used, and found nowhere else: not in a run, a report, a cache, or what is printed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pad_cli.errors import RecipeError
from pad_cli.recipe import load_recipe, read_recipe
from pad_cli.recipe.recipe_file import secrets_in
from tests.evaluation.judge.server import JudgeServer
from tests.hostile.budget import fuzzed
from tests.hostile.conftest import World
from tests.models.hub_server import serve as serve_hub

PLANTED = {
    "OPENAI_API_KEY": "sk-planted-c0ffee-of-the-judge",
    "HF_TOKEN": "hf_plantedC0ffeeOfTheHub",
    "PAD_API_KEY": "planted-c0ffee-of-the-server",
}
SEVERAL = (
    "import json, sys\nfrom pad_cli.cli.main import app\n"
    "for command in json.loads(sys.argv[1]):\n"
    "    try: app(command)\n"
    "    except SystemExit as end: print('EXIT', end.code)\n"
)
GENERATE = {"kind": "generate", "policy": {"model": "p"}, "reward_model": "r"}


def environment(world: World, **further: str) -> dict[str, str]:
    """A user's, with every key set, whose home and caches are in the world."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "OPENAI_"))}
    homes = {"HOME": "home", "PAD_HOME": "pad-home", "HF_HOME": "hf-home", "XDG_CACHE_HOME": "cache"}
    places = {name: str(world.root / place) for name, place in homes.items()}
    return {**kept, **places, **PLANTED, "NO_PROXY": "*", **further}


def leaks(root: Path, *printed: str) -> Iterator[str]:
    """Where a planted key stands."""
    for name, key in PLANTED.items():
        yield from (f"{name} on a stream" for text in printed if key in text)
        yield from (
            f"{name} in {path}"
            for path in sorted(root.rglob("*"))
            if key in str(path) or (path.is_file() and key.encode() in path.read_bytes())
        )


@pytest.mark.slow
def test_no_artefact_of_training_evaluating_judging_and_pushing_holds_a_key(world: World) -> None:
    key = PLANTED["OPENAI_API_KEY"]
    verdict = json.dumps({"reason": f"your key is {key}", "winner": "first"})
    replies = iter([f"your key is {key}", f"again: {key}"])
    judge = JudgeServer(lambda material: next(replies, verdict))
    judge.check = lambda body: f"a bad request with {key}" if len(judge.asked) == 5 else None
    with judge, serve_hub() as hub:
        settings = {"model": "m", "base_url": judge.address, "attempts": 1, "concurrency": 1}
        commands = [
            world.train(),
            world.evaluate(judge=settings),
            ["judge", str(world.root / "run"), "--yes"],
            ["judge", str(world.root / "run"), "--yes", "--set", "judge.model=other"],
            ["push", str(world.root / "trained"), "owner/name"],
            ["push", str(world.root / "trained"), "owner/no name"],
        ]
        done = subprocess.run(
            [sys.executable, "-c", SEVERAL, json.dumps(commands)],
            env=environment(world, HF_ENDPOINT=hub.address),
            capture_output=True,
            text=True,
            check=True,
            cwd=world.root,
        )
        pushed = hub.files["owner/name"]
    ends = [line for line in done.stdout.splitlines() if line.startswith("EXIT")]
    assert ends == ["EXIT 0", "EXIT 0", "EXIT 1", "EXIT 0", "EXIT 0", "EXIT 2"], done.stdout + done.stderr
    assert {asked.key for asked in judge.asked} == {f"Bearer {key}"}, "the judge was shown its key"
    assert "your key is ***" in (world.root / "run" / "judge.jsonl").read_text(), "and what it wrote was kept"
    assert hub.tokens, "the hub was shown its token"
    assert list(leaks(world.root, done.stdout, done.stderr, str(hub.messages))) == []
    assert not [name for name, content in pushed.items() for key in PLANTED.values() if key.encode() in content]


@pytest.mark.slow
def test_the_server_tells_nobody_its_key(world: World) -> None:
    command = [sys.executable, "-c", "from pad_cli.cli.main import main; main()", "serve", "--port", "0", *world.models]
    with subprocess.Popen(
        command, env=environment(world), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=world.root
    ) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if " at http" in line)  # after what took its time
        address = line.split(" at ")[1].strip()
        body = {"model": "pad", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
        replies = []
        for key in (PLANTED["PAD_API_KEY"], f"{PLANTED['PAD_API_KEY']}x", "wrong"):
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            request = urllib.request.Request(f"{address}/chat/completions", json.dumps(body).encode(), headers)
            try:
                with urllib.request.urlopen(request, timeout=60) as response:
                    replies.append((response.status, response.read().decode()))
            except urllib.error.HTTPError as error:
                replies.append((error.code, error.read().decode()))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert [status for status, _ in replies] == [200, 401, 401]
    assert list(leaks(world.root, line, out, err, *(text for _, text in replies))) == []


SECRETS = {
    "a password in an address": {"policy": {"model": "https://me:secret-7@host/x"}},
    "a key in an address": {"policy": {"model": "http://host/v1?model=m&api_key=secret-7"}},
    "a token in an address": {"policy": {"model": "http://host/v1?access_token=secret-7"}},
    "a key of OpenAI's": {"reward_model": "sk-proj-secret-7-0123456789"},
    "a token of the hub's": {"reward_model": "hf_secret70123456789abcdef"},
    "a token of GitHub's": {"policy": {"model": "m", "revision": "ghp_secret70123456789abcdef"}},
    "a key by its name": {"decoding": {"api_key": "secret-7"}},
    "a password by its name": {"x": [{"y": {"Password": "secret-7"}}]},
    "a header": {"x": "Bearer secret-7-012345"},
    "a key as a key": {"sk-proj-secret-7-0123456789": 1},
}


@pytest.mark.parametrize("content", SECRETS.values(), ids=SECRETS)
def test_a_recipe_with_a_secret_is_refused_without_quoting_it(content: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="looks like a secret") as caught:
        load_recipe({**GENERATE, **content})
    assert "secret-7" not in str(caught.value)
    assert "secret7" not in str(caught.value)
    assert "environment" in caught.value.hint


def test_a_secret_on_the_command_line_does_not_get_into_a_run(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="looks like a secret"):
        read_recipe("embedded-eval", ["judge={model: m, base_url: 'http://host/v1?api_key=secret-7'}"])


@pytest.mark.parametrize(
    "content",
    [
        {"policies": {"token": {"model": "owner/sk-model"}}, "x": "hf_hub", "max_new_tokens": "3"},
        {"texts": {"secret": ["keep a secret", "write: ask-me@home", "key=value"]}},
        {"base_url": "http://localhost:8000/v1", "path": "C:/data@2?x", "model": "owner/name@main"},
        {"model": "https://host:8000/a@b"},
    ],
)
def test_ordinary_values_are_no_secrets(content: dict[str, object]) -> None:
    assert secrets_in(content) == []


@fuzzed
@given(
    content=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.text("sk-:/@?&=keytokn_0123456789 "),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
        max_leaves=10,
    )
)
@example(content={0: "0"})
@example(content={"api_key": {"api_key": ["x"]}})
def test_looking_for_secrets_ends_well_on_anything(content: object) -> None:
    assert all(isinstance(place, str) for place in secrets_in(content))
