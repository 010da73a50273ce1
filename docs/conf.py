"""How Sphinx builds these pages into a site (`make docs`); references are written from the code first."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from generator import mathml, reference  # noqa: E402

from pad_cli import __version__  # noqa: E402

project = "pad"
author = "the authors of pad"
release = __version__
extensions = ["myst_parser"]

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4
toc_object_entries_show_parents = "hide"
smartquotes = False  # `--file` stays what one types
html_math_renderer = mathml.NAME

html_theme = "furo"
html_title = "pad"
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
html_static_path = ["static"]
html_css_files = ["site.css"]
pygments_style = "friendly"
pygments_dark_style = "native"


def setup(app: object) -> None:
    """Write the generated pages, then let Sphinx read everything."""
    mathml.setup(app)
    reference.setup(app)
