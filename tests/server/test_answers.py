"""What the server says is what the engine says, however many ask at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from typing import Any

import openai
import pytest
import torch

from pad_cli import Limits, PadEngine
from tests.agreement import alone, assert_agree
from tests.server.conftest import SETTINGS, Serve, Server

QUESTIONS = ("Hi", "How do I start with chess?", "Tell me about bread, and take your time.", "Why?")
SPECS: tuple[tuple[str, list[str]], ...] = (
    ("pad/humorous", ["humorous"]),
    ("pad/formal+concise=0.5", ["formal", "concise=0.5"]),
    ("pad/not humorous", ["not humorous"]),
    ("pad", []),
)


def offline(engine: PadEngine, prompt: str, specs: list[str], count: int = 1, **changed: Any) -> list[str]:
    settings = SETTINGS.model_copy(update=changed)
    preference = engine.preference(specs)
    return [answer.text for answer in engine.generate([prompt] * count, [preference] * count, settings)]


def agree(engine: PadEngine, prompt: str, specs: list[str], answer: str, **changed: Any) -> None:
    """An answer that was decoded beside others is the engine's own but for near ties."""
    asked = [prompt], [engine.preference(specs)], SETTINGS.model_copy(update=changed)
    assert_agree(engine.generate(*asked), [answer], alone(engine, *asked))


def say(client: openai.OpenAI, model: str, prompt: str, **options: Any) -> Any:
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": prompt}], **options)


def count_batches(engine: PadEngine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that the engine decodes from now on."""
    sizes: list[int] = []
    steps_of = engine.steps

    def steps(items: Sequence[Any], *arguments: Any) -> Any:
        sizes.append(len(items))
        return steps_of(items, *arguments)

    monkeypatch.setattr(engine, "steps", steps)
    return sizes


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_many_clients_at_once_get_the_engines_own_answers(
    serve: Serve, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(Limits(max_batch=8))
    batches = count_batches(server.engine, monkeypatch)
    client = server.client()
    asked = list(islice(cycle((prompt, *spec) for prompt in QUESTIONS for spec in SPECS), 40))

    def ask(number: int) -> str:
        prompt, model, _ = asked[number]
        answer = say(client, model, prompt, temperature=temperature, seed=number % 3)
        return str(answer.choices[0].message.content)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(ask, range(len(asked))))
    assert sum(batches) == len(asked)
    assert max(batches) > 1, "some are decoded together"
    for number, (prompt, _, specs) in enumerate(asked):
        agree(server.engine, prompt, specs, answers[number], temperature=temperature, seed=number % 3)


def test_a_stream_is_the_same_answer_in_pieces(serve: Serve) -> None:
    server = serve()
    for prompt in QUESTIONS:
        stream = say(
            server.client(),
            "pad/humorous",
            prompt,
            stream=True,
            n=2,
            temperature=1.0,
            seed=4,
            stream_options={"include_usage": True},
        )
        texts, reasons, usage = ["", ""], {}, None
        for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                if choice.finish_reason:
                    reasons[choice.index] = choice.finish_reason
            usage = chunk.usage or usage
        assert texts == offline(server.engine, prompt, ["humorous"], 2, temperature=1.0, seed=4)
        whole = say(server.client(), "pad/humorous", prompt, n=2, temperature=1.0, seed=4)
        assert [choice.message.content for choice in whole.choices] == texts
        assert reasons == {choice.index: choice.finish_reason for choice in whole.choices}
        assert usage is not None
        assert usage.total_tokens == whole.usage.total_tokens
        assert 0 < usage.completion_tokens <= 2 * 24


def test_a_preference_may_come_as_text_list_or_map_and_adds_to_the_models(serve: Serve) -> None:
    server = serve()
    expected = offline(server.engine, "Hi", ["humorous", "concise=0.5"], guidance_weight=2.0)
    forms: list[tuple[str, Any]] = [
        ("pad", "humorous, concise=0.5"),
        ("pad", ["humorous", "concise=0.5"]),
        ("pad", {"humorous": 1, "concise": 0.5}),
        ("pad/humorous", "concise=0.5"),
    ]
    for model, preference in forms:
        answer = say(server.client(), model, "Hi", extra_body={"pad": {"preference": preference, "guidance_weight": 2}})
        assert answer.choices[0].message.content == expected[0]
        assert answer.model_extra["pad"] == {"preference": "humorous, concise=0.5", "guidance_weight": 2.0, "seed": 0}


def test_base_is_the_policy_alone_and_pad_the_default_preference(serve: Serve) -> None:
    server = serve(default=["formal"])
    assert say(server.client(), "base", "Hi").choices[0].message.content == offline(server.engine, "Hi", [])[0]
    assert say(server.client(), "pad", "Hi").choices[0].message.content == offline(server.engine, "Hi", ["formal"])[0]


def test_conversations_and_parts_of_text_are_read_as_the_engine_reads_them(serve: Serve) -> None:
    server = serve()
    messages: Any = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": [{"type": "text", "text": "How "}, {"type": "text", "text": "so?"}]},
    ]
    answer = server.client().chat.completions.create(model="pad/formal", messages=messages)
    conversation = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "How \nso?"},
    ]
    preference = server.engine.preference(["formal"])
    expected = server.engine.generate([tuple(conversation)], [preference], SETTINGS)[0]
    assert answer.choices[0].message.content == expected.text
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len(expected.token_ids)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_ends_before_a_stop_string(serve: Serve, stream: bool) -> None:
    server = serve()
    whole = offline(server.engine, QUESTIONS[1], ["humorous"])[0]
    stop = whole[5:8]
    expected = whole[: whole.index(stop)]
    answer = say(server.client(), "pad/humorous", QUESTIONS[1], stop=[stop, "\0"], stream=stream)
    if stream:
        chunks = [chunk.choices[0] for chunk in answer]
        assert "".join(chunk.delta.content or "" for chunk in chunks) == expected
        assert chunks[-1].finish_reason == "stop"
    else:
        assert answer.choices[0].message.content == expected
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage.completion_tokens < 24


def test_lengths_are_each_requests_own(serve: Serve) -> None:
    server = serve(Limits(batch_wait=0.2))

    def ask(limit: int) -> tuple[int, str]:
        answer = say(server.client(), "pad/humorous", "Hi", max_completion_tokens=limit)
        return answer.usage.completion_tokens, answer.choices[0].finish_reason

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(ask, [1, 4, 9])) == [(1, "length"), (4, "length"), (9, "length")]


def test_without_a_seed_samples_differ_and_the_seed_used_repeats_one(serve: Serve) -> None:
    server = serve()
    answers = [say(server.client(), "pad/humorous", "Hi", temperature=1.0) for _ in range(4)]
    assert len({answer.choices[0].message.content for answer in answers}) > 1
    seed = answers[0].model_extra["pad"]["seed"]
    again = say(server.client(), "pad/humorous", "Hi", temperature=1.0, seed=seed)
    assert again.choices[0].message.content == answers[0].choices[0].message.content


def test_models_are_listed_and_each_can_be_asked(serve: Serve) -> None:
    client = serve().client()
    names = [model.id for model in client.models.list()]
    assert names == ["pad", "base", "pad/humorous", "pad/formal", "pad/concise"]
    for name in [*names, "pad/humorous+formal=-1"]:
        assert say(client, name, "Hi", max_tokens=2).choices[0].message.content is not None


def test_a_profile_is_a_model(serve: Serve, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "me.yaml").write_text("weights: {humorous: 0.5, formal: -1}\n")
    server = serve()
    assert "pad/@me" in [model.id for model in server.client().models.list()]
    expected = offline(server.engine, "Hi", ["humorous=0.5, formal=-1"])[0]
    assert say(server.client(), "pad/@me", "Hi").choices[0].message.content == expected
    assert (
        say(server.client(), "pad", "Hi", extra_body={"pad": {"preference": "@me"}}).choices[0].message.content
        == expected
    )


def test_the_safety_floor_cannot_be_asked_away(serve: Serve, policy: Any, reward_model: Any) -> None:
    engine = PadEngine(policy, reward_model, always={"formal": 1.0})
    server: Server = serve(engine=engine)
    client = server.client()
    assert "base" not in [model.id for model in client.models.list()]
    with pytest.raises(openai.NotFoundError):
        say(client, "base", "Hi")
    with pytest.raises(openai.BadRequestError, match="always steers at a guidance weight"):
        say(client, "pad", "Hi", extra_body={"pad": {"guidance_weight": 0}})
    answer = say(client, "pad", "Hi", extra_body={"pad": {"preference": "not formal"}})
    assert answer.choices[0].message.content == offline(engine, "Hi", ["formal"])[0]


def cramped(engine: PadEngine, monkeypatch: pytest.MonkeyPatch, rows: int, after: int) -> None:
    """Have memory for so many rows only; with more it runs out after some steps."""
    steps_of = engine.steps

    def steps(items: Sequence[Any], *arguments: Any) -> Iterator[Any]:
        for number, step in enumerate(steps_of(items, *arguments)):
            if len(items) > rows and number == after:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            yield step

    monkeypatch.setattr(engine, "steps", steps)


def test_a_batch_too_large_for_the_memory_fails_and_later_ones_are_half_as_large(
    serve: Serve,
    policy: Any,
    reward_model: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Clients that ask again, as those of OpenAI do on their own, get their answers."""
    engine = PadEngine(policy, reward_model)
    cramped(engine, monkeypatch, rows=2, after=3)
    server = serve(Limits(max_batch=4, batch_wait=0.5), engine=engine)
    several = {"model": "pad/humorous", "messages": [{"role": "user", "content": "Hi"}], "n": 4}
    status, content = server.post(several)
    assert (status, content["error"]["code"]) == (503, "out_of_memory")
    assert "at most 2 answers" in caplog.text
    status, content = server.post(several)
    assert status == 200
    for choice in content["choices"]:
        agree(PadEngine(policy, reward_model), "Hi", ["humorous"], choice["message"]["content"])
