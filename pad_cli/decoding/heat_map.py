"""An answer as a self-contained HTML page: each token coloured by how far guidance pushed it, its rivals on hover."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from pad_cli.decoding.detokenize import TokenChoice
from pad_cli.reports.html import POLICY
from pad_cli.system.runs import check_output

_HEAD = 1024  # bytes of a page in which its policy stands
_STRONGEST = 4.0  # nats at which a colour is full

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>
  body {{ font: 18px/1.9 system-ui, sans-serif; max-width: 46rem; margin: 3rem auto; padding: 0 1rem; color: #1b1b1f }}
  h1 {{ font-size: 1.1rem }}
  .token {{ position: relative; white-space: pre-wrap; border-radius: 3px; cursor: help }}
  .token:focus {{ outline: 2px solid #3367d6 }}
  .changed {{ border-bottom: 3px solid #1e7d46 }}
  .rivals {{ display: none; position: absolute; left: 0; top: 1.9em; z-index: 1; background: #fff; padding: .4rem .6rem;
             border: 1px solid #bbb; border-radius: 4px; font: 13px/1.5 ui-monospace, monospace; white-space: pre }}
  .token:hover .rivals, .token:focus .rivals {{ display: block }}
  .key {{ font-size: .85rem; color: #555 }}
</style>
<h1>{title}</h1>
<p class="key">Green: guidance pushed this token up; red: down (full colour at {strongest:g} nats). Underlined: the
policy alone would have said something else. Point at a token, or tab to it, for its rivals: their probability under the
policy, and their push in nats.</p>
<p>{tokens}</p>
</html>
"""


def check_page_output(target: Path, *, overwrite: bool = False) -> None:
    """Make sure that a page written to a file replaces nothing but an earlier one.

    Raises:
        UsageError: it holds something else, which may not be replaced.
    """
    check_output(target, "page of pad", _is_page, folder=False, overwrite=overwrite)


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        return POLICY.encode() in file.read(_HEAD)


def heat_map(prompt: str, preference: str, choices: Sequence[TokenChoice]) -> str:
    """The page for one answer.

    Args:
        prompt: what was answered.
        preference: as described by `Preference.describe`.
        choices: from `PadEngine.explain`.
    """
    title = html.escape(f"{prompt} [{preference or 'no preference'}]")
    return _PAGE.format(policy=POLICY, title=title, strongest=_STRONGEST, tokens="".join(map(_token, choices)))


def _token(choice: TokenChoice) -> str:
    strength = min(abs(choice.push) / _STRONGEST, 1.0)
    colour = "30, 160, 85" if choice.push > 0 else "214, 60, 50"
    rivals = "\n".join(f"{c.probability:6.3f} {c.push:+6.2f}  {c.text!r}" for c in choice.candidates)
    changed = " changed" if choice.steered else ""
    return (
        f'<span class="token{changed}" tabindex="0" style="background: rgba({colour}, {0.75 * strength:.2f})">'
        f'{html.escape(choice.text)}<span class="rivals">{html.escape(rivals)}</span></span>'
    )
