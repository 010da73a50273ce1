"""Options of registered callables: checked by signature and annotations, while their own errors are let through."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from pad_cli.errors import RecipeError
from pad_cli.recipe import make_with

if TYPE_CHECKING:
    from nowhere import Unknown


@dataclass(frozen=True)
class Parts:
    size: int = 1
    share: float = 0.5
    names: tuple[str, ...] = ()
    examples: str | Sequence[Mapping[str, Any]] = ()


class ByHand:
    def __init__(self, *, size: int, **rest: Any) -> None:
        self.made = {"size": size, **rest}


class Foreign:
    """A type that pydantic knows nothing of."""


def exotic(size: int, thing: Foreign | None = None) -> int:
    return size


def unresolved(size: Unknown, other: int = 1) -> tuple[Any, int]:
    return size, other


def bare(size):
    return size


def failing(size: int) -> int:
    raise TypeError(f"a bug with {size}")


def make(entry: Callable[..., Any], **given: Any) -> Any:
    return make_with(entry, given, "scorers: options of 'x'", "Read about it.")


@pytest.mark.parametrize(
    ("entry", "given", "said"),
    [
        (Parts, {"sizes": 2}, "sizes: no such key. Did you mean size"),
        (Parts, {"size": "two"}, r"size: .*\(found 'two'\)"),
        (Parts, {"size": "2"}, r"size: .*\(found '2'\)"),
        (Parts, {"share": True}, r"share: .*\(found True\)"),
        (Parts, {"names": "a"}, "names: "),
        (Parts, {"examples": 3}, "examples.str: input should be a valid string"),
        (ByHand, {}, "size: is missing"),
        (ByHand, {"size": None}, r"size: .*\(found None\)"),
        (exotic, {"size": [1], "thing": 3}, "size: input should be a valid integer"),
        (bare, {}, "size: is missing"),
        (unresolved, {"size": 3, "wrong": 3}, "wrong: no such key"),
        (failing, {"size": "two"}, "size: "),
    ],
)
def test_options_that_do_not_fit_are_recipe_errors(entry: Any, given: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=r"scorers: options of 'x': " + said) as caught:
        make(entry, **given)
    assert caught.value.hint == "Read about it."


def test_all_options_of_another_form_are_named_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        make(Parts, share="much", size="two")
    assert [line.split(": ")[2] for line in caught.value.message.splitlines()] == ["size", "share"]


@pytest.mark.parametrize(
    ("entry", "given", "made"),
    [
        (Parts, {}, Parts()),
        (Parts, {"size": 2, "share": 1, "names": ["a"]}, Parts(2, 1, ["a"])),
        (Parts, {"examples": [{"prompt": "Why?"}]}, Parts(examples=[{"prompt": "Why?"}])),
        (exotic, {"size": 3, "thing": None}, 3),
        (bare, {"size": object}, object),
        (unresolved, {"size": 3, "other": 2}, (3, 2)),
    ],
)
def test_options_that_fit_arrive_as_they_stand(entry: Any, given: dict[str, Any], made: Any) -> None:
    assert make(entry, **given) == made


def test_options_of_any_name_reach_what_takes_them() -> None:
    assert make(ByHand, size=3, colour="red").made == {"size": 3, "colour": "red"}


def test_a_type_error_raised_inside_is_let_through() -> None:
    with pytest.raises(TypeError, match="a bug with 3"):
        make(failing, size=3)
