"""Reports for people (floor 1): JSON records rendered as HTML pages, Markdown and tables on a terminal."""
