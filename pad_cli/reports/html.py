"""Sections as one self-contained HTML page, light or dark as its reader has it."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Callable
from typing import TypeVar

from pad_cli.reports.content import Grid, Section

Cell = TypeVar("Cell")

POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'unsafe-inline'"
"""What a browser may do with a page: show it. Nothing is fetched, and no script runs that the page does not name."""

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>
  :root {{ color-scheme: light dark; --ink: #1b1b1f; --paper: #fff; --faint: #5a5a62; --line: #d5d5da; --good: #17693a;
           --fair: #8a5a00; --bad: #b3261e; --c0: #2b5fc4; --c1: #c2570c; --c2: #17693a; --c3: #8b3fb0; --c4: #a8324a;
           --c5: #00707c }}
  @media (prefers-color-scheme: dark) {{
    :root {{ --ink: #e6e6ea; --paper: #17171a; --faint: #a0a0aa; --line: #3c3c44; --good: #6fd197; --fair: #f0bd5b;
             --bad: #ff8a80; --c0: #8ab4ff; --c1: #ffab6b; --c2: #6fd197; --c3: #d19bf0; --c4: #ff9aac; --c5: #5fd0dc }}
  }}
  body {{ font: 16px/1.55 system-ui, sans-serif; max-width: 64rem; margin: 2.5rem auto; padding: 0 1rem;
          color: var(--ink); background: var(--paper) }}
  h1 {{ font-size: 1.5rem; overflow-wrap: anywhere }}
  h2 {{ font-size: 1.1rem; margin-top: 2.2rem }}
  p, li {{ max-width: 46rem; overflow-wrap: anywhere }}
  .wide {{ overflow-x: auto }}
  table {{ border-collapse: collapse; font-size: .88rem; margin: .8rem 0; font-variant-numeric: tabular-nums }}
  th, td {{ padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }}
  caption {{ text-align: left; color: var(--faint) }} th {{ font-weight: 600 }} .right {{ text-align: right }}
  .share {{ white-space: nowrap }} .share small, .legend, figcaption {{ color: var(--faint) }}
  .bar {{ display: block; width: 7rem; height: .85rem; margin-left: auto }}
  .bar .interval {{ fill: var(--c0); opacity: .45 }} .bar circle {{ fill: var(--c0) }}
  .axis {{ stroke: var(--faint); stroke-width: 1; fill: none }} .grid {{ stroke: var(--line) }}
  .figures {{ display: flex; flex-wrap: wrap; gap: 1.5rem }}
  figure {{ margin: .8rem 0; max-width: 100% }} figcaption, .legend {{ font-size: .82rem; max-width: 420px }}
  .plot {{ width: 420px; max-width: 100% }} .curve {{ stroke-width: 2 }}
  svg text {{ fill: var(--ink); font-size: 11px }}
  .legend {{ margin: .2rem 0 }} .legend span {{ margin-right: 1rem; white-space: nowrap }}
  .legend i {{ display: inline-block; width: .8rem; height: .8rem; margin-right: .3rem; border-radius: 2px }}
{style}</style>
<h1>{title}</h1>
{body}
{script}</html>
"""


def document(title: str, body: str, *, style: str = "", script: str = "") -> str:
    """A whole page, which its browser keeps from fetching anything, and from running any other script.

    Args:
        title: plain text.
        body: HTML below the heading.
        style: CSS beside that of every report.
        script: JavaScript, run once the body is there.
    """
    wrapped, policy = "", POLICY
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        wrapped, policy = f"<script>{script}</script>\n", f"{POLICY}; script-src 'sha256-{digest}'"
    return _PAGE.format(policy=policy, title=html.escape(title), body=body, style=style, script=wrapped)


def section_html(section: Section[Cell], cell: Callable[[Cell], str]) -> str:
    """A section with its heading.

    Args:
        section: to be written.
        cell: a cell as HTML.
    """
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in section.lines)
    grids = "".join(grid_html(grid, cell) for grid in section.grids)
    figures = "".join(
        f'<figure><div class="wide">{figure.svg}</div><figcaption>{html.escape(figure.caption)}</figcaption></figure>'
        for figure in section.figures
    )
    drawn = f'<div class="figures">{figures}</div>' if figures else ""
    return f"<h2>{html.escape(section.title)}</h2>{lines}{grids}{drawn}"


def grid_html(grid: Grid[Cell], cell: Callable[[Cell], str]) -> str:
    """A table that scrolls sideways where it is too wide."""
    sides = [' class="right"' if side == ">" else "" for side in grid.align]
    header = "".join(
        f'<th scope="col"{side}>{html.escape(name)}</th>' for name, side in zip(grid.header, sides, strict=True)
    )
    rows = "".join(
        f"<tr>{''.join(f'<td{side}>{cell(each)}</td>' for each, side in zip(row, sides, strict=True))}</tr>"
        for row in grid.rows
    )
    title = f"<caption>{html.escape(grid.title)}</caption>" if grid.title else ""
    return f'<div class="wide"><table>{title}<tr>{header}</tr>{rows}</table></div>'
