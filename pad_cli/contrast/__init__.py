"""Preference pairs that a language model writes itself, under contrasting instructions (floor 6)."""
