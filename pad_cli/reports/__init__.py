"""Reports for people (floor 1): what a page says, as Markdown, and as HTML that needs nothing from elsewhere."""
