"""An answer as a self-contained HTML page: each token coloured by how far guidance pushed it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pad_cli.decoding.detokenize import TokenChoice
from pad_cli.reports.document import POLICY, Document, page
from pad_cli.system.runs import check_output

_HEAD = 1024  # bytes of a page in which its policy stands
_STRONGEST = 4.0  # nats at which a colour is full


def check_page_output(target: Path, *, overwrite: bool = False) -> None:
    """Refuse to write a page over anything but an earlier one (UsageError)."""

    def is_page(path: Path) -> bool:
        with path.open("rb") as file:
            return POLICY.encode() in file.read(_HEAD)

    check_output(target, "page of pad", is_page, folder=False, overwrite=overwrite)


def heat_map(prompt: str, preference: str, choices: Sequence[TokenChoice]) -> str:
    """The page for one answer, from `PadEngine.explain`; each token's competitors are listed under the pointer."""
    document = Document(f"{prompt} [{preference or 'no preference'}]")
    return page(document, "heat_map.html.j2", strongest=_STRONGEST, tokens=list(map(_token, choices)))


def _token(choice: TokenChoice) -> dict[str, str]:
    colour = "30, 160, 85" if choice.push > 0 else "214, 60, 50"
    return {
        "text": choice.text,
        "colour": f"rgba({colour}, {0.75 * min(abs(choice.push) / _STRONGEST, 1.0):.2f})",
        "class": "token changed" if choice.steered else "token",
        "candidates": "\n".join(f"{c.probability:6.3f} {c.push:+6.2f}  {c.text!r}" for c in choice.candidates),
    }
