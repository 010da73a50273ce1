"""Equations as MathML, which browsers set themselves: no script, nothing fetched. docutils converts them."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

NAME = "mathml"


def setup(app: Any) -> None:
    """Make it known to Sphinx."""
    app.add_html_math_renderer(NAME, (_inline, None), (_block, None))


def _inline(writer: Any, node: nodes.Node) -> None:
    writer.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.Node) -> None:
    writer.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode
