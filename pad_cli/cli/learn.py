"""`pad learn`: one user's weights from choices, by questions, for many users at once; and new principles."""

from __future__ import annotations

import dataclasses
import json
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pad_cli.cli.options import GenerateRecipeName, Json, Overrides, Overwrite, Quiet, RewardModel, read_as
from pad_cli.cli.tables import print_text
from pad_cli.errors import UsageError
from pad_cli.system.progress import note, set_quiet
from pad_cli.system.terminal import FittingTable, say, say_json, say_table

if TYPE_CHECKING:
    from pad_cli import GenerateRecipe, Learned, Profile, Session

_ANSWERS = {"1": True, "2": False, "n": None}
_STOP = ("q", "")
_ROW = b'{"user": '  # how a table of users begins


def learn(
    name: Annotated[
        str | None, typer.Argument(help="Of the profile, for --pref @NAME. With --users or --new-principle: the file.")
    ] = None,
    choices: Annotated[
        Path | None, typer.Argument(help="JSONL of prompt, chosen, rejected; or of prompt, answers, choice.")
    ] = None,
    ask: Annotated[
        bool, typer.Option("--ask", help="Ask which of two answers is better, until that is enough.")
    ] = False,
    questions: Annotated[int, typer.Option(min=1, help="With --ask: at most so many in this sitting.")] = 20,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --ask: JSONL of prompts; without it the embedded ones.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="With --ask: use the first so many prompts.")] = 40,
    users: Annotated[
        bool, typer.Option("--users", help="The file's rows have a `user`: learn all of them, into --out (JSONL).")
    ] = False,
    new_principle: Annotated[
        str | None,
        typer.Option(metavar="PRINCIPLE", help="Learn one more principle from pairs that show it, into --out."),
    ] = None,
    wording: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="With --new-principle: other words for it; repeat.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where to; a profile is profiles/NAME.yaml without it.")] = None,
    recipe: GenerateRecipeName = "embedded-generate",
    policy: Annotated[str | None, typer.Option(help="With --ask: language model that answers.")] = None,
    reward_model: RewardModel = None,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Learn what one user wants from choices between answers, with everything else frozen."""
    set_quiet(quiet)
    _check(name, choices, ask, users, new_principle, out)
    options = {"policy.model": policy, "reward_model": reward_model}
    settings = read_as("generate", recipe, overrides, options=options)
    assert name is not None
    _check_output(name, users, new_principle, out, overwrite)
    if new_principle is not None:
        assert out is not None
        _add_principle(settings, new_principle, Path(name), wording or [], out, overwrite, as_json)
    elif users:
        assert out is not None
        _learn_users(settings, Path(name), out)
    elif ask:
        _ask(settings, name, prompts, count, questions, out, as_json)
    else:
        assert choices is not None
        _learn_user(settings, name, choices, out, as_json)


def _check(
    name: str | None, choices: Path | None, ask: bool, users: bool, new_principle: str | None, out: Path | None
) -> None:
    if ask + users + (new_principle is not None) > 1:
        raise UsageError("--ask, --users and --new-principle are different things to do.", "Choose one.")
    if name is None:
        raise UsageError("There is nothing to learn from.", "pad learn me choices.jsonl, or pad learn me --ask")
    if users or new_principle is not None:
        if choices is not None:
            raise UsageError(f"Unexpected '{choices}'.", "With --users or --new-principle give one file, and --out.")
        if out is None:
            raise UsageError("It is not said where the result goes.", "Name it: --out PATH")
    elif ask and choices is not None:
        raise UsageError(
            "Give choices or --ask, not both.", "Answers to --ask are kept, and can be learned from again."
        )
    elif not ask and choices is None:
        raise UsageError(f"There are no choices to learn '{name}' from.", f"pad learn {name} choices.jsonl, or --ask")


def _check_output(name: str, users: bool, new_principle: str | None, out: Path | None, overwrite: bool) -> None:
    """Refuse to replace what pad did not write, before anybody answers a question."""
    import pad_cli

    if users and out is not None:
        pad_cli.check_output(out, "table of users", _is_table, folder=False, overwrite=overwrite)
    elif new_principle is None:
        pad_cli.check_profile_output(out or pad_cli.profile_path(name), overwrite=overwrite)


def _is_table(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_ROW)) == _ROW


def _learn_user(settings: GenerateRecipe, name: str, choices: Path, out: Path | None, as_json: bool) -> None:
    import pad_cli

    pad_cli.profile_path(name)
    found = pad_cli.read_choices(choices)
    model = pad_cli.load_reward_model(settings.reward_model)
    learned = pad_cli.learn_user(model, found)
    _keep(learned, _profile(name, learned, model.fingerprint), out, as_json)


def _ask(
    settings: GenerateRecipe,
    name: str,
    prompts: Path | None,
    count: int,
    questions: int,
    out: Path | None,
    as_json: bool,
) -> None:
    import pad_cli

    profile = pad_cli.profile_path(name)
    log = profile.with_suffix(".choices.jsonl")
    with pad_cli.only_here(log), pad_cli.only_here(out or profile):
        asked = pad_cli.read_prompts(prompts, count)
        engine = pad_cli.PadEngine.from_recipe(settings)
        pool = pad_cli.make_pool(engine, asked, settings.decoding)
        assert isinstance(engine.reward_model, pad_cli.PersonalizedRewardModel), "make_pool refuses others"
        session = pad_cli.Session(engine.reward_model, pool, log)
        if session.replies:
            note(f"Going on: {len(session.replies)} questions were answered before ({log}).")
        _put_questions(session, questions)
        if not session.can_learn:
            say(f"Your answers are kept in {log}, too few for a profile yet. Run it again to go on.", stderr=True)
            return
        learned = session.learned()
        _keep(learned, _profile(name, learned, session.model.fingerprint), out, as_json)


def _put_questions(session: Session, most: int) -> None:
    """Ask until the user stops, `most` are answered, or nothing tells enough any more."""
    for _ in range(most):
        question = session.next()
        if question is None:
            note("Further questions would tell little.")
            return
        comparison = question.comparison
        _show(question.number, comparison.prompt[-1]["content"], comparison.first, comparison.second)
        reply = _read_reply()
        if reply in _STOP:
            return
        session.answer(question, _ANSWERS[reply])


def _show(number: int, prompt: str, first: str, second: str) -> None:
    from rich.text import Text

    table = FittingTable(title=Text(f"{number}. {prompt}"), title_justify="left", expand=True, show_lines=True)
    for place in ("1", "2"):
        table.add_column(place, ratio=1, overflow="fold")
    table.add_row(Text(first), Text(second))
    say_table(table, stderr=True)


def _read_reply() -> str:
    """One of the answers, or to stop, which the end of the input is, too."""
    while True:
        say("Better: 1 or 2, n for neither, q to stop > ", end="", stderr=True)
        line = sys.stdin.readline()
        reply = line.strip().lower()[:1]
        if not line or reply in _ANSWERS or reply == "q":
            return reply
        say("Type 1, 2, n or q.", stderr=True)


def _learn_users(settings: GenerateRecipe, file: Path, out: Path) -> None:
    import pad_cli

    users = pad_cli.read_users(file)
    model = pad_cli.load_reward_model(settings.reward_model)
    learned = pad_cli.learn_users(model, users)
    rows = [{"user": user, "reward_model": model.fingerprint, **_row(found)} for user, found in learned.items()]
    pad_cli.write_whole(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    say(f"{len(rows)} users in {out}", stderr=True)


def _add_principle(
    settings: GenerateRecipe,
    principle: str,
    examples: Path,
    wordings: list[str],
    out: Path,
    overwrite: bool,
    as_json: bool,
) -> None:
    import pad_cli

    added = pad_cli.add_principle(principle, examples, settings.reward_model, out, wordings, overwrite=overwrite)
    if as_json:
        say_json({**dataclasses.asdict(added), "directory": str(added.directory)})
        return
    accuracy = added.pair_accuracy
    print_text(
        f"'{added.name}' from {added.examples} pairs in {added.seconds:.1f} s: it ranks {accuracy.value:.0%} of them "
        f"rightly when trained on the others ({accuracy.low:.0%} to {accuracy.high:.0%})."
    )
    say(f'Use it: pad generate "..." --reward-model {added.directory} --pref "{added.name}"')


def _profile(name: str, learned: Learned, fingerprint: str) -> Profile:
    import pad_cli

    accuracy = learned.accuracy
    return pad_cli.Profile(
        name=name,
        weights={key: round(weight, 3) for key, weight in learned.weights.items() if weight},
        reward_model=fingerprint,
        principles=tuple(learned.weights),
        intervals={key: (round(low, 3), round(high, 3)) for key, (low, high) in learned.intervals.items()},
        choices=learned.choices,
        accuracy=round(accuracy.value, 3),
        accuracy_interval=(round(accuracy.low, 3), round(accuracy.high, 3)),
        created=date.today(),
    )


def _row(learned: Learned) -> dict[str, Any]:
    accuracy = learned.accuracy
    return {
        "weights": {name: round(weight, 4) for name, weight in learned.weights.items() if weight},
        "accuracy": accuracy.value,
        "accuracy_interval": [accuracy.low, accuracy.high],
        "certainty": learned.certainty,
        "choices": learned.choices,
        "ties": learned.ties,
        "contradictions": learned.contradictions,
    }


def _keep(learned: Learned, profile: Profile, out: Path | None, as_json: bool) -> None:
    """Write a profile, and say what it says."""
    import pad_cli

    path = pad_cli.save_profile(profile, out)
    if as_json:
        say_json({"profile": str(path), **_row(learned)})
        return
    left_out = [
        f"{count} {what}{'s' if count > 1 else ''}"
        for count, what in ((learned.ties, "tie"), (learned.contradictions, "contradiction"))
        if count
    ]
    accuracy, besides = learned.accuracy, f" (besides: {', '.join(left_out)})" if left_out else ""
    print_text(f"{learned.summary[0].upper()}{learned.summary[1:]}.")
    print_text(
        f"From {learned.choices} choices{besides}, of which weights "
        f"learned from the others predict {accuracy.value:.0%} ({accuracy.low:.0%} to {accuracy.high:.0%})."
    )
    print_text(learned.advice)
    say(f'{path}: pad generate "..." --pref @{profile.name}')
