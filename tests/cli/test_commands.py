"""The command line: argv in, text out, exit code; the result on stdout, talk and errors on stderr."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

import pad_cli
from pad_cli.cli.main import app
from pad_cli.errors import PadError, StorageError
from pad_cli.recipe import shipped_recipes
from pad_cli.system.progress import set_quiet


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    set_quiet(False)


def pad(*arguments: str, stdin: str | None = None) -> Result:
    """Run `pad` in this process; a bug of ours comes out as its exception."""
    result = CliRunner().invoke(app, list(arguments), input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refused(*arguments: str, code: int = 2, stdin: str | None = None) -> str:
    """What `pad` says on stderr when it refuses, in one line; nothing goes to stdout, and there is no traceback."""
    result = pad(*arguments, stdin=stdin)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return " ".join(result.stderr.split())


def shell(*arguments: str, stdin: bytes = b"", check: str = "") -> subprocess.CompletedProcess[bytes]:
    """Run `pad` as a user does; `check` is Python to run after it, in the same process."""
    program = f"import sys\nfrom pad_cli.cli.main import main\ntry: main()\nfinally: {check or 'pass'}"
    return subprocess.run([sys.executable, "-c", program, *arguments], input=stdin, capture_output=True)


NO_TORCH = "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)), file=sys.stderr)"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["generate", "--help"], ["eval", "--help"], ["recipe", "--help"]]
)
def test_help_and_version_load_no_torch(arguments: list[str]) -> None:
    done = shell(*arguments, check=NO_TORCH)
    assert done.returncode == 0
    assert done.stderr.decode().split("\n")[-2:] == ["[]", ""]


def test_help_names_every_command() -> None:
    result = pad("--help")
    assert result.exit_code == 0
    assert all(command in result.stdout for command in ("generate", "train-rm", "eval", "demo", "recipe"))


@pytest.mark.parametrize("command", ["generate", "train-rm", "eval", "demo", "recipe list", "recipe copy"])
def test_every_command_explains_itself(command: str) -> None:
    result = pad(*command.split(), "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.stdout


def test_the_version_is_one_line() -> None:
    result = pad("--version")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"pad {pad_cli.__version__}\n", "")


def test_python_dash_m_is_the_same_program() -> None:
    done = subprocess.run([sys.executable, "-m", "pad_cli", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"pad {pad_cli.__version__}\n")


def test_an_error_goes_to_stderr_without_a_traceback_and_sets_the_exit_code() -> None:
    done = shell("recipe", "show", "embeded")
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.startswith(b"Error: No recipe file 'embeded'.\nDid you mean embedded")
    assert b"Traceback" not in done.stderr
    assert b"\x1b[" not in done.stderr, "colour, although piped"


@pytest.mark.parametrize("arguments", [["genrate", "x"], ["--nonsense"], ["generate", "--weight", "much", "x"]])
def test_an_unknown_command_option_or_value_exits_2(arguments: list[str]) -> None:
    assert "Usage:" in refused(*arguments)


@pytest.mark.parametrize("command", ["train-rm", "eval"])
def test_a_missing_recipe_argument_exits_2(command: str) -> None:
    assert "Missing argument" in refused(command)


@pytest.mark.parametrize("command", ["train-rm {}", "eval {}", "generate x --recipe {}", "recipe check {}"])
def test_an_unknown_recipe_exits_2_with_a_suggestion(command: str) -> None:
    said = refused(*command.format("embedded-evl").split())
    assert "No recipe file 'embedded-evl'" in said
    assert "Did you mean embedded-eval" in said


@pytest.mark.parametrize(
    ("command", "found", "needed"),
    [
        ("train-rm embedded-eval", "eval", "train-rm"),
        ("eval embedded", "train-rm", "eval"),
        ("generate x --recipe embedded", "train-rm", "generate"),
    ],
)
def test_a_recipe_of_the_wrong_kind_exits_2_and_names_both_kinds(command: str, found: str, needed: str) -> None:
    said = refused(*command.split())
    assert f"is a recipe of kind '{found}'" in said
    assert f"needs kind: {needed}" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "--file", "x.jsonl"],
        ["generate", "x", "--out", "y.jsonl"],
        ["generate", "x", "--file", "x.jsonl", "--out", "y.jsonl"],
    ],
)
def test_file_and_out_go_together_and_without_a_prompt(arguments: list[str]) -> None:
    assert "--file" in refused(*arguments)


@pytest.mark.parametrize(("arguments", "stdin"), [([""], None), (["  \n"], None), (["-"], " \n"), ([], "")])
def test_an_empty_prompt_exits_2(arguments: list[str], stdin: str | None) -> None:
    assert "The prompt is empty" in refused("generate", *arguments, stdin=stdin)


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_standard_input_that_is_no_text_exits_2(errors: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python reads it strictly or not, as the locale has it. The policy is missing, so that none is built or loaded."""
    monkeypatch.setenv("PYTHONIOENCODING", f"utf-8:{errors}")
    done = shell("generate", "--policy", "./nowhere", stdin=b"caf\xe9")
    assert (done.returncode, b"Traceback" in done.stderr) == (2, False), done.stderr.decode()


def test_all_problems_of_a_recipe_are_shown_at_once() -> None:
    said = refused("recipe", "check", "embedded", "--set", "seed=-1", "--set", "heads.rnk=3")
    assert "2 problems" in said
    assert "seed: " in said
    assert "heads.rnk: no such key. Did you mean rank?" in said


def test_markup_in_an_error_is_shown_as_it_is() -> None:
    assert "'[bold]x[/]'" in refused("recipe", "show", "[bold]x[/]")


# pad recipe


def test_recipe_list_names_every_shipped_recipe_with_its_kind() -> None:
    result = pad("recipe", "list")
    assert result.exit_code == 0
    for name in shipped_recipes():
        assert name in result.stdout
    assert all(kind in result.stdout for kind in ("train-rm", "generate", "eval"))


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_recipe_show_prints_the_file_unchanged(name: str) -> None:
    assert pad("recipe", "show", name).stdout == shipped_recipes()[name].read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_recipe_check_accepts_what_ships(name: str) -> None:
    result = pad("recipe", "check", name)
    assert result.exit_code == 0
    assert "a valid recipe of kind" in result.stdout


def test_recipe_copy_writes_a_file_that_can_be_used_by_its_path(tmp_path: Path) -> None:
    result = pad("recipe", "copy", "embedded", "deep/mine.yaml")
    assert (result.exit_code, result.stdout) == (0, "deep/mine.yaml\n")
    assert (tmp_path / "deep" / "mine.yaml").read_bytes() == shipped_recipes()["embedded"].read_bytes()
    assert pad("recipe", "check", "deep/mine.yaml").exit_code == 0


def test_recipe_copy_refuses_to_overwrite_unless_forced(tmp_path: Path) -> None:
    mine = tmp_path / "real-local.yaml"
    mine.write_text("mine")
    assert "exists already" in refused("recipe", "copy", "real-local")
    assert mine.read_text() == "mine"
    (tmp_path / "elsewhere").mkdir()
    mine.rename(tmp_path / "elsewhere" / "target.yaml")
    assert pad("recipe", "copy", "real-local", "elsewhere/target.yaml", "--force").exit_code == 0
    assert (tmp_path / "elsewhere" / "target.yaml").read_text().startswith("# Preference heads")


def test_recipe_copy_to_a_place_that_cannot_be_written_exits_1(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "Cannot write" in refused("recipe", "copy", "embedded", "file/x.yaml", code=1)


@pytest.mark.parametrize("command", ["show", "check", "copy"])
def test_a_recipe_that_is_no_text_exits_2(tmp_path: Path, command: str) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "there").mkdir()
    arguments = ["there/copy.yaml"] if command == "copy" else []
    assert "UTF-8" in refused("recipe", command, "binary.yaml", *arguments)


# The boundary


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Make reading a recipe fail in the given way."""

    def fail_with(error: BaseException) -> None:
        def fail(*_: object) -> None:
            raise error

        monkeypatch.setattr("pad_cli.recipe.read_recipe", fail)

    return fail_with


@pytest.mark.parametrize(("error", "code"), [(StorageError("Full.", "Empty it."), 1), (PadError("[b]No[/b]."), 1)])
def test_every_pad_error_becomes_its_message_hint_and_exit_code(failing, error: PadError, code: int) -> None:
    failing(error)
    assert refused("recipe", "check", "x", code=code) == f"Error: {error.message} {error.hint}".strip()


def test_an_interrupt_exits_130_and_says_how_to_go_on(failing) -> None:
    failing(KeyboardInterrupt())
    assert "Run the same command again" in refused("recipe", "check", "x", code=130)


def test_a_bug_of_ours_keeps_its_traceback(failing) -> None:
    failing(ZeroDivisionError("ours"))
    with pytest.raises(ZeroDivisionError):
        pad("recipe", "check", "x")


def test_a_reader_that_leaves_ends_the_program_in_silence() -> None:
    command = f"{sys.executable} -m pad_cli recipe show embedded | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True)
    assert done.returncode in (0, 1)
    assert done.stderr == b""
