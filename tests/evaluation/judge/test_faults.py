"""A judge whose server fails: what can be asked again is, what cannot is counted, and no money is spent unseen."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pad_cli.endpoint.asking import LOST
from pad_cli.errors import EndpointError
from pad_cli.evaluation.judge.judging import REPLIES, judge, plan_judging
from pad_cli.system.runs import ResultLog
from tests.evaluation.judge import server as faults
from tests.evaluation.judge.conftest import KEY, WriteRun
from tests.evaluation.judge.server import JudgeServer, Material, choice

PAD = {f"Question {number}?": f"answer {number}" for number in range(6)}
BASE = {prompt: f"plain {text}" for prompt, text in PAD.items()}
PRICES = {"input_price": 1.0, "output_price": 4.0}
WEEK = {"Retry-After": str(7 * 86400)}


def taste(material: Material) -> str:
    """Likes answers to even questions, and short ones to the others."""
    even = int(str(material["first_answer"]).split()[-1]) % 2 == 0
    plain = str(material["first_answer"]).startswith("plain")
    return choice("first" if plain == even else "second")


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with JudgeServer(taste) as running:
        yield running


def planned(write_run: WriteRun, server: JudgeServer, **settings: Any) -> Any:
    content = {"model": "tiny", "base_url": server.address, "timeout": 5.0, "attempts": 3}
    return plan_judging(write_run(BASE, PAD, {**content, **settings}))


@pytest.fixture
def undisturbed(write_run: WriteRun) -> dict[str, Any]:
    """The report when nothing goes wrong."""
    with JudgeServer(taste) as calm:
        return judge(planned(write_run, calm, base_url=calm.address))


@pytest.mark.parametrize(
    "fault",
    [
        faults.status(429, headers={"Retry-After": "0.05"}),
        faults.status(503),
        faults.stall,
        faults.truncated_body,
        faults.reset,
    ],
    ids=["429-after", "503", "stall", "body-cut", "reset"],
)
def test_a_passing_fault_changes_no_figure(write_run: WriteRun, server: JudgeServer, fault: faults.Fault) -> None:
    server.faults.extend([fault, None, None, fault])
    report = judge(planned(write_run, server, timeout=0.8 if fault is faults.stall else 5.0))
    row = report["pairwise"][0]
    assert len(server.asked) == 12 + 2
    assert (row["n"], row["wins"], row["losses"], row["win_rate"]) == (6, 3, 3, 0.5)
    assert (row["ties"], row["unparsed"], row["failed"], report["complete"]) == (0, 0, 0, True)


@pytest.mark.parametrize("fault", [faults.truncated_json, faults.wrong_json, faults.no_json])
def test_a_reply_that_is_no_chat_completion_may_be_billed_and_is_asked_again_next_time(
    write_run: WriteRun, server: JudgeServer, fault: faults.Fault
) -> None:
    server.faults.append(fault)
    report = judge(planned(write_run, server, concurrency=1, **PRICES))
    assert [one["result"] for one in report["outcomes"]].count("failed") == 1
    assert report["cost"]["lost_usd"] > usd(1)
    assert judge(planned(write_run, server))["complete"]
    assert len(server.asked) == 12 + 1


def test_a_lasting_fault_of_one_question_is_counted_and_asked_again_next_time(
    write_run: WriteRun, server: JudgeServer, undisturbed: dict[str, Any]
) -> None:
    server.faults.extend([faults.status(500)] * 3)
    report = judge(planned(write_run, server, concurrency=1))
    (row,) = [row for row in report["pairwise"] if row["preference"] == "*"]
    assert (row["n"], row["failed"], row["unparsed"]) == (5, 1, 0)
    assert not report["complete"]
    again = judge(planned(write_run, server))
    assert again["pairwise"] == undisturbed["pairwise"]
    assert len(server.asked) == 3 + 11 + 1


def test_a_refused_question_fails_alone_and_at_once(write_run: WriteRun, server: JudgeServer) -> None:
    server.faults.append(faults.status(400, message="maximum context length is 10 tokens"))
    report = judge(planned(write_run, server, concurrency=1))
    assert [one["result"] for one in report["outcomes"]].count("failed") == 1
    assert len(server.asked) == 12


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_of_everything_ends_the_run_without_showing_the_key(
    write_run: WriteRun, server: JudgeServer, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    server.faults.extend([None, None, faults.status(status, message=f"wrong key {KEY}"), *[faults.status(status)] * 9])
    plan = planned(write_run, server, concurrency=2)
    with pytest.raises(EndpointError, match=f"refused .{status}.: .*wrong key \\*\\*\\*|refused .{status}.") as caught:
        judge(plan)
    assert KEY not in str(caught.value)
    assert KEY not in "".join(capsys.readouterr())
    assert caught.value.hint
    assert len(server.asked) <= 4
    assert len(ResultLog(plan.directory / REPLIES).done) >= 1


def test_a_server_that_is_down_ends_the_run_soon(write_run: WriteRun, server: JudgeServer) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    started = time.monotonic()
    plan = planned(write_run, server, base_url=address, attempts=2, **PRICES)
    with pytest.raises(EndpointError, match="questions in a row"):
        judge(plan)
    assert time.monotonic() - started < 5
    assert plan.spent == 0  # nothing was sent


def test_a_server_that_asks_for_a_week_is_not_waited_for(write_run: WriteRun, server: JudgeServer) -> None:
    server.faults.extend([faults.status(429, headers=WEEK, message="quota exceeded")] * 30)
    with pytest.raises(EndpointError, match="quota exceeded"):
        judge(planned(write_run, server, attempts=1))


def test_a_question_waits_as_long_as_the_server_says(write_run: WriteRun, server: JudgeServer) -> None:
    server.faults.append(faults.status(429, headers={"Retry-After": "0.8"}))
    judge(planned(write_run, server, concurrency=1))
    first, second = server.asked[:2]
    assert second.when - first.when >= 0.8


@pytest.mark.parametrize("name", ["response_format", "temperature"])
def test_an_option_that_the_server_does_not_take_is_left_out(
    write_run: WriteRun, server: JudgeServer, undisturbed: dict[str, Any], name: str
) -> None:
    server.check = lambda body: f"Unsupported parameter: '{name}'" if name in body else None
    assert judge(planned(write_run, server, concurrency=2))["pairwise"] == undisturbed["pairwise"]
    assert len(server.asked) <= 12 + 2
    assert name not in server.asked[-1].body


def test_a_server_that_wants_its_limit_by_another_name_gets_it(write_run: WriteRun, server: JudgeServer) -> None:
    told = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    server.check = lambda body: told if "max_tokens" in body else None
    assert judge(planned(write_run, server, concurrency=1))["complete"]
    assert server.asked[-1].body["max_completion_tokens"] == 512
    assert len(server.asked) == 13


def test_requests_keep_the_rate(write_run: WriteRun, server: JudgeServer) -> None:
    judge(planned(write_run, server, requests_per_minute=60 * 4, limit=3))
    starts = [asked.when for asked in server.asked]
    assert starts[-1] - starts[0] >= 5 / 4 - 0.15  # the first may arrive late


def test_at_most_so_many_requests_are_under_way(write_run: WriteRun, server: JudgeServer) -> None:
    server.seconds = 0.05
    judge(planned(write_run, server, concurrency=3, timeout=5))
    assert server.most_at_once == 3


# What it costs


def usd(requests: int) -> float:
    return requests * (100 * PRICES["input_price"] + 20 * PRICES["output_price"]) / 1e6


def test_the_cost_is_what_the_server_counted(write_run: WriteRun, server: JudgeServer) -> None:
    plan = planned(write_run, server, **PRICES)
    assert plan.volume.usd is not None
    assert 0 < plan.volume.tokens_in < 12 * 1000
    report = judge(plan)
    counts = {"questions": 12, "tokens_in": 1200, "tokens_out": 240}
    assert report["cost"] == {**counts, "usd": pytest.approx(usd(12)), "lost_usd": 0}


def test_without_prices_there_are_tokens_and_no_dollars(write_run: WriteRun, server: JudgeServer) -> None:
    plan = planned(write_run, server)
    assert (plan.volume.usd, plan.spent) == (None, None)
    assert judge(plan)["cost"]["usd"] is None


def most(body: dict[str, Any]) -> tuple[int, int]:
    """As many tokens as a request can take: one a byte, and sixteen around each message."""
    return sum(len(message["content"].encode()) + 16 for message in body["messages"]), body["max_tokens"]


def bill(server: JudgeServer) -> float:
    """USD for everything that the server worked on."""
    prices = PRICES["input_price"], PRICES["output_price"]
    return sum(read * prices[0] + written * prices[1] for read, written in server.billed) / 1e6


UNREADABLE = faults.says("?" * 400)


@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize(
    "disturbed",
    [
        [],
        [faults.stall],
        [faults.truncated_json, None],
        [UNREADABLE, None],
        [faults.reset, faults.reset, UNREADABLE, None],
    ],
    ids=["calm", "stall", "cut", "unreadable", "lost-and-unreadable"],
)
def test_the_budget_is_never_exceeded_and_what_is_done_is_kept(
    write_run: WriteRun, server: JudgeServer, concurrency: int, disturbed: list[faults.Fault | None]
) -> None:
    server.tokens = most
    patience = {"timeout": 0.4 if faults.stall in disturbed else 5.0, "attempts": 4}
    for limit in (0.012, 0.016, 0.02):
        server.faults.clear()
        server.faults.extend(disturbed * 3)
        plan = planned(write_run, server, concurrency=concurrency, max_cost=limit, **PRICES, **patience)
        report = judge(plan)
        assert plan.spent is not None
        assert bill(server) <= plan.spent + 1e-9 <= limit + 2e-9
        assert (report["over_budget"], report["complete"]) == (True, False)
    kept = {key for key, row in plan.log.done.items() if row["mode"] != LOST}
    server.faults.clear()
    more = planned(write_run, server, concurrency=concurrency, max_cost=1.0, **PRICES)
    assert more.waiting == 12 - len(kept)
    assert judge(more)["complete"]


def test_pairs_that_the_budget_leaves_out_stand_as_missing(write_run: WriteRun, server: JudgeServer) -> None:
    report = judge(planned(write_run, server, max_cost=0.001, **PRICES))
    (row,) = [row for row in report["pairwise"] if row["preference"] == "*"]
    assert (row["n"], row["missing"], row["win_rate"]) == (0, 6, None)
    assert server.asked == []


def test_lost_requests_stand_in_the_report_and_refused_ones_do_not(write_run: WriteRun, server: JudgeServer) -> None:
    server.faults.extend([faults.stall, faults.status(503)])
    plan = planned(write_run, server, timeout=0.8, concurrency=1, **PRICES)
    report = judge(plan)
    (lost,) = [row for row in plan.log.done.values() if row["mode"] == LOST]
    assert lost["tokens_out"] == 512
    assert report["cost"]["lost_usd"] > 0
    assert report["cost"]["usd"] == pytest.approx(usd(12))


def test_replies_without_counts_cost_the_most_they_can(write_run: WriteRun, server: JudgeServer) -> None:
    server.tokens = lambda body: None
    report = judge(planned(write_run, server, **PRICES))
    assert report["cost"]["tokens_out"] == 12 * 512
    assert report["cost"]["tokens_in"] > 12 * 300


def test_a_log_that_was_cut_in_a_line_is_continued(write_run: WriteRun, server: JudgeServer) -> None:
    plan = planned(write_run, server)
    judge(plan)
    log: Path = plan.directory / REPLIES
    log.write_bytes(log.read_bytes()[:-30])
    assert planned(write_run, server).waiting == 1
    assert all(json.loads(line)["key"] for line in log.read_text(encoding="utf-8").splitlines())
