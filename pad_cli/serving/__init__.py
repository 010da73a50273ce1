"""Preferences served by other people's engines (floor 5)."""
