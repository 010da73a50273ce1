"""`pad serve` as a process, and the clients that people use with it: openai, LiteLLM, LangChain, curl, JavaScript.

`make test-slow` installs LiteLLM and LangChain in `.venv-clients`, since this project needs neither.
"""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

import openai
import pytest

from tests.documents.pages import BLOCKS, ROOT, Block
from tests.server.conftest import Start

pytestmark = pytest.mark.slow

PYTHON = ROOT / ".venv-clients" / "bin" / "python"
PROGRAMS = sorted((Path(__file__).parent / "clients").glob("with_*.py"))
ADDRESS = "http://127.0.0.1:8000/v1"
SHOWN = [block for block in BLOCKS if ADDRESS in block.text and block.unrun]
"""What docs/serving.md shows of clients that the tests of documents cannot run."""


@pytest.fixture
def address(start: Start) -> str:
    return start("--allow-origin", "http://localhost:3000")[1]


def run(*words: object) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it asks the network what models cost
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_a_program_with_a_wrapper_of_the_client_works(address: str, program: Path) -> None:
    if not PYTHON.exists():
        pytest.skip("make test-slow installs LiteLLM and LangChain")
    run(PYTHON, program, address)


@pytest.mark.parametrize("block", SHOWN, ids=str)
def test_what_the_documents_show_of_a_client_works(address: str, block: Block) -> None:
    programs = {"python": [PYTHON, "-c"], "sh": ["sh", "-ec"], "js": ["node", "--input-type=module", "-e"]}
    program, *options = programs[block.language]
    if not (shutil.which("curl" if block.language == "sh" else str(program))):
        pytest.skip(f"there is no {program}")
    assert run(program, *options, block.text.replace(ADDRESS, address)).strip()


def test_the_documents_show_every_client() -> None:
    text = "\n".join(block.text for block in SHOWN)
    assert all(name in text for name in ("litellm", "langchain_openai", "curl", "fetch"))


def test_the_openai_client_talks_with_a_server_for_many_turns(address: str) -> None:
    client = openai.OpenAI(base_url=address, api_key="none", max_retries=0)
    say = client.chat.completions.create
    whole: list[dict[str, object]] = []
    for form in ("object", "model_dump", "streamed"):
        history: list[object] = [{"role": "user", "content": "Hi"}]
        for _ in range(3):
            if form == "streamed":
                chunks = say(model="pad/humorous", messages=history, max_tokens=8, stream=True)
                content = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
                history.append({"role": "assistant", "content": content})
            else:
                message = say(model="pad/humorous", messages=history, max_tokens=8).choices[0].message
                history.append(message if form == "object" else message.model_dump())
            history.append({"role": "user", "content": "And then?"})
        read = [each if isinstance(each, dict) else each.model_dump() for each in history]
        whole.append({"said": [each["content"] for each in read]})
    assert whole[0] == whole[1] == whole[2]


def test_the_openai_client_asks_for_choices_stops_and_tools(address: str) -> None:
    client = openai.OpenAI(base_url=address, api_key="none", max_retries=0)
    ask = {"model": "pad/humorous", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}
    first = client.chat.completions.create(**ask).choices[0].message.content
    several = client.chat.completions.create(**ask, n=3, temperature=1.0, seed=1)
    assert len({choice.message.content for choice in several.choices}) > 1
    stopped = client.chat.completions.create(**ask, stop=first[2]).choices[0]
    assert (stopped.message.content, stopped.finish_reason) == (first.partition(first[2])[0].strip(), "stop")
    tools = [{"type": "function", "function": {"name": "clock", "parameters": {}}}]
    with pytest.raises(openai.BadRequestError, match="not supported"):
        client.chat.completions.create(**ask, tools=tools)


def test_a_connection_that_idled_is_still_there(address: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    connection.request("GET", "/health")
    connection.getresponse().read()
    socket = connection.sock
    time.sleep(7)  # servers close theirs after five seconds, where nobody says otherwise
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200
    assert connection.sock is socket
    connection.close()


def test_the_command_lets_a_page_ask(address: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    wanted = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    for origin, allowed in (("http://localhost:3000", "http://localhost:3000"), ("http://evil.example", None)):
        connection.request("OPTIONS", "/v1/chat/completions", headers={"Origin": origin, **wanted})
        response = connection.getresponse()
        response.read()
        assert response.getheader("access-control-allow-origin") == allowed
    connection.close()
