"""What a program with LiteLLM does with a server.

python with_litellm.py ADDRESS
"""

import sys

import litellm

HERE = {"api_base": sys.argv[1], "api_key": "none"}
HI = {"role": "user", "content": "Hi"}
WHY = {"role": "user", "content": "Why?"}


def say(messages, **options):
    return litellm.completion(model="openai/pad/humorous", messages=messages, max_tokens=8, **HERE, **options)


first = say([HI])
message = first.choices[0].message
second = say([HI, message, WHY])
assert second.choices[0].message.content == say([HI, message.model_dump(), WHY]).choices[0].message.content
plain = {"role": "assistant", "content": message.content}
assert second.choices[0].message.content == say([HI, plain, WHY]).choices[0].message.content

pieces = [chunk.choices[0] for chunk in say([HI], stream=True)]
assert "".join(piece.delta.content or "" for piece in pieces) == message.content
assert pieces[-1].finish_reason == first.choices[0].finish_reason

several = say([HI], n=2, temperature=1.0, seed=4)
assert len({choice.message.content for choice in several.choices}) == 2

letter = message.content[2]
assert say([HI], stop=[letter]).choices[0].message.content == message.content.partition(letter)[0].strip()

cached = [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]
assert say([{"role": "user", "content": cached}]).choices[0].message.content == message.content

long = litellm.completion(model="openai/pad/humorous", messages=[HI], max_tokens=100_000, **HERE)
assert long.choices[0].finish_reason in ("stop", "length")

try:
    told = str(say([HI], tools=[{"type": "function", "function": {"name": "clock", "parameters": {}}}]))
except litellm.BadRequestError as error:
    told = str(error)
assert "not supported" in told, told
