"""What a program with LangChain does with a server.

python with_langchain.py ADDRESS
"""

import sys

import openai
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI

HERE = {"base_url": sys.argv[1], "api_key": "none", "max_retries": 0}


def model(**options):
    return ChatOpenAI(model="pad/humorous", **{"max_tokens": 8, **HERE, **options})


history = [SystemMessage("Be kind."), HumanMessage("Hi")]
first = model().invoke(history)
assert first.content
assert first.usage_metadata["output_tokens"] == 8
second = model().invoke([*history, first, HumanMessage("Why?")])
assert second.content
parts = HumanMessage([{"type": "text", "text": "Hi"}])
assert model().invoke([history[0], parts]).content == first.content

assert "".join(piece.content for piece in model(stream_usage=True).stream(history)) == first.content
assert [answer.content for answer in model().batch([history, history])] == [first.content] * 2
several = model(n=2, temperature=1.0, seed=4).generate([history]).generations[0]
assert len({choice.text for choice in several}) == 2
letter = first.content[2]
assert model().invoke(history, stop=[letter]).content == first.content.partition(letter)[0].strip()
assert model(max_tokens=100_000).invoke(history).response_metadata["finish_reason"] in ("stop", "length")
thinking = model(extra_body={"chat_template_kwargs": {"enable_thinking": False}, "top_k": -1})
assert thinking.invoke(history).content == first.content


def clock() -> str:
    """What time it is."""
    return "now"


try:
    told = str(model().bind_tools([clock]).invoke(history))
except openai.BadRequestError as error:
    told = str(error)
assert "not supported" in told, told
