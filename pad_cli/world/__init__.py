"""The embedded world (floor 3): a small English of hobbies, with exact scorers for every principle.

Its text is in `data/world/*.yaml`. Nothing outside this package and `pad_cli/embedded/` knows it: the rest of the
program reaches it by name through `pad_cli/registry.py`, as it reaches anything else.
"""
