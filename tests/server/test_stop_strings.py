"""Stop strings in text that arrives in pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pad_cli.server.scheduler import StopStrings

TEXT = st.text(alphabet="abc ", max_size=20)
STOPS = st.lists(st.text(alphabet="abc ", min_size=1, max_size=4), max_size=3)


def passed(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    stream = StopStrings(stops)
    return "".join([*map(stream.push, pieces), stream.finish()]), stream.met


@given(st.lists(TEXT, max_size=6), STOPS)
def test_how_the_text_is_cut_changes_nothing(pieces: list[str], stops: list[str]) -> None:
    letters = list("".join(pieces))
    assert passed(pieces, stops) == passed(letters, stops)


@given(TEXT, STOPS)
def test_text_is_passed_on_up_to_a_stop_string(text: str, stops: list[str]) -> None:
    out, met = passed([text], stops)
    assert text.startswith(out)
    assert met == any(stop in text for stop in stops)
    assert any(text.startswith(out + stop) for stop in stops) if met else out == text
    assert not any(stop in out for stop in stops)


def test_no_more_is_held_back_than_a_stop_string_may_begin_with() -> None:
    stream = StopStrings(["\n\n"])
    assert stream.push("one\n") == "one"
    assert stream.push("two") == "\ntw"
    assert stream.push("\n\nthree") == "o"
    assert stream.met
    assert stream.push("four") == "" == stream.finish()
