"""The embedded world (floor 6): a small English of hobbies with exact scorers for every principle, and its models.

Its text is in `data/world/*.yaml`. The rest of the program reaches it by the entry points in `pyproject.toml`, as it
reaches any plug-in.
"""
