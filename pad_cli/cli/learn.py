"""`pad learn`: one user's weights from choices, by questions, for many users at once; and new principles."""

from __future__ import annotations

import dataclasses
import json
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pad_cli.cli.options import (
    GenerateRecipeName,
    Json,
    Overrides,
    Overwrite,
    Policy,
    Prompts,
    Quiet,
    RewardModel,
    read_generate,
)
from pad_cli.cli.tables import print_text
from pad_cli.errors import UsageError
from pad_cli.system.progress import note
from pad_cli.system.terminal import say, say_json, say_table, text_table

if TYPE_CHECKING:
    from pad_cli.learning.question_session import Session
    from pad_cli.learning.user_weights import Learned
    from pad_cli.recipe import GenerateRecipe

_ANSWERS = {"1": True, "2": False, "n": None}
_STOP = ("q", "")
_ROW = b'{"user": '  # how a table of users begins


def learn(
    name: Annotated[
        str | None, typer.Argument(help="Profile name (for --pref @NAME); with --users or --new-principle, the file.")
    ] = None,
    choices: Annotated[
        Path | None, typer.Argument(help="JSONL file: prompt, chosen, rejected; or prompt, answers, choice.")
    ] = None,
    ask: Annotated[bool, typer.Option("--ask", help="Ask which answer is better until questions add little.")] = False,
    questions: Annotated[int, typer.Option(min=1, help="With --ask: at most this many questions now.")] = 20,
    prompts: Prompts = None,
    count: Annotated[int, typer.Option(min=1, help="With --ask: use only the first prompts, this many.")] = 40,
    users: Annotated[
        bool, typer.Option("--users", help="Rows have a `user`: learn weights for every user; write --out (JSONL).")
    ] = False,
    new_principle: Annotated[
        str | None, typer.Option(metavar="PRINCIPLE", help="Learn a principle from pairs that show it, into --out.")
    ] = None,
    wording: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="With --new-principle: a paraphrase of it; repeat.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Output path; a profile defaults to profiles/NAME.yaml.")] = None,
    recipe: GenerateRecipeName = None,
    policy: Policy = None,
    reward_model: RewardModel = None,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Learn what one user wants from choices between answers, with everything else frozen."""
    from pad_cli.profiles import check_profile_output, profile_path

    if ask + users + (new_principle is not None) > 1:
        raise UsageError("--ask, --users and --new-principle cannot be combined.", "Choose one.")
    if name is None:
        raise UsageError("There is nothing to learn from.", "pad learn me choices.jsonl, or pad learn me --ask")
    settings = read_generate(recipe, overrides, policy, reward_model)
    if users or new_principle is not None:
        if choices is not None:
            raise UsageError(f"Unexpected '{choices}'.", "With --users or --new-principle give one file, and --out.")
        if out is None:
            raise UsageError("The output has no name.", "Name it: --out PATH")
        if users:
            _learn_users(settings, Path(name), out, overwrite=overwrite)
            return
        from pad_cli.learning.new_principle import add_principle

        assert new_principle is not None
        added = add_principle(new_principle, Path(name), settings.reward_model, out, wording or [], overwrite=overwrite)
        if as_json:
            say_json({**dataclasses.asdict(added), "directory": str(added.directory)})
            return
        print_text(
            f"'{added.name}' from {added.examples} pairs: trained on the others, it ranks "
            f"{_share(added.pair_accuracy)} of them rightly."
        )
        say(f'Use it: pad generate "..." --reward-model {added.directory} --pref "{added.name}"')
        return
    if ask == (choices is not None):
        problem = "Give choices or --ask, not both." if ask else f"There are no choices to learn '{name}' from."
        raise UsageError(problem, f"pad learn {name} choices.jsonl, or pad learn {name} --ask")
    check_profile_output(out or profile_path(name), overwrite=overwrite)
    if choices is None:
        _ask(settings, name, prompts, count, questions, out, as_json)
        return
    from pad_cli.learning.choices import read_choices
    from pad_cli.learning.user_weights import learn_user
    from pad_cli.models.checkpoint import load_reward_model

    read = read_choices(choices)
    model = load_reward_model(settings.reward_model)
    _save(learn_user(model, read), name, model.fingerprint, out, as_json)


def _ask(
    settings: GenerateRecipe,
    name: str,
    prompts: Path | None,
    count: int,
    questions: int,
    out: Path | None,
    as_json: bool,
) -> None:
    from pad_cli.decoding.engine import PadEngine
    from pad_cli.learning.effect import read_prompts
    from pad_cli.learning.question_session import Session, make_pool
    from pad_cli.models.reward_model import PersonalizedRewardModel
    from pad_cli.profiles import profile_path
    from pad_cli.system.runs import only_here

    log = profile_path(name).with_suffix(".choices.jsonl")
    with only_here(log), only_here(out or profile_path(name)):
        conversations = read_prompts(prompts, count)
        engine = PadEngine.from_recipe(settings)
        pool = make_pool(engine, conversations, settings.decoding)
        assert isinstance(engine.reward_model, PersonalizedRewardModel), "make_pool refuses others"
        session = Session(engine.reward_model, pool, log)
        if session.replies:
            note(f"Going on: {len(session.replies)} questions were answered before ({log}).")
        _put_questions(session, questions)
        if session.can_learn:
            _save(session.learned(), name, session.model.fingerprint, out, as_json)
        else:
            say(f"Replies saved in {log}: too few for a profile yet. Run the command again to continue.", stderr=True)


def _put_questions(session: Session, most: int) -> None:
    """Ask until the user stops, `most` are answered, or nothing tells enough any more."""
    for _ in range(most):
        place = session.next()
        if place is None:
            note("Further questions would tell little.")
            return
        comparison = session.pool.comparisons[place]
        title = f"{len(session.replies) + 1}. {comparison.prompt[-1]['content']}"
        answers = [(comparison.first, comparison.second)]
        say_table(text_table(("1", "2"), answers, title=title, side_by_side=True), stderr=True)
        reply = _read_reply()
        if reply in _STOP:
            return
        session.answer(place, _ANSWERS[reply])


def _read_reply() -> str:
    """One of the answers, or to stop, which the end of the input is, too."""
    while True:
        say("Better: 1 or 2, n for neither, q to stop > ", end="", stderr=True)
        line = sys.stdin.readline()
        reply = line.strip().lower()[:1]
        if not line or reply in _ANSWERS or reply == "q":
            return reply
        say("Type 1, 2, n or q.", stderr=True)


def _learn_users(settings: GenerateRecipe, file: Path, out: Path, *, overwrite: bool) -> None:
    from pad_cli.learning.choices import read_users
    from pad_cli.learning.user_weights import learn_users
    from pad_cli.models.checkpoint import load_reward_model
    from pad_cli.system.runs import check_output, write_whole

    check_output(
        out, "table of users", lambda path: path.read_bytes().startswith(_ROW), folder=False, overwrite=overwrite
    )
    users = read_users(file)
    model = load_reward_model(settings.reward_model)
    learned = learn_users(model, users)
    rows = [{"user": user, "reward_model": model.fingerprint, **_row(each)} for user, each in learned.items()]
    write_whole(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    say(f"{len(rows)} users in {out}", stderr=True)


def _row(learned: Learned) -> dict[str, Any]:
    accuracy = learned.accuracy
    return {
        "weights": {name: round(weight, 4) for name, weight in learned.weights.items() if weight},
        "accuracy": accuracy.value,
        "accuracy_interval": [accuracy.low, accuracy.high],
        "choices": learned.choices,
        "ties": learned.ties,
    }


def _share(accuracy: Any) -> str:
    return f"{accuracy.value:.0%} ({accuracy.low:.0%} to {accuracy.high:.0%})"


def _save(learned: Learned, name: str, fingerprint: str, out: Path | None, as_json: bool) -> None:
    """Write a profile, and print what it contains."""
    from pad_cli.profiles import Profile, save_profile

    accuracy = learned.accuracy
    profile = Profile(
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
    path = save_profile(profile, out)
    if as_json:
        say_json({"profile": str(path), **_row(learned)})
        return
    print_text(f"{learned.summary[0].upper()}{learned.summary[1:]}.")
    neither = f" (and {learned.ties} of neither answer)" if learned.ties else ""
    print_text(
        f"From {learned.choices} choices{neither}, of which weights learned from the others predict {_share(accuracy)}."
    )
    if accuracy.low <= 0.5:
        print_text("This may be chance: give more choices, between answers that differ in what you care for.")
    say(f'{path}: pad generate "..." --pref @{profile.name}')
