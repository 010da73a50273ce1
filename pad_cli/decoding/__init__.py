"""Guided decoding (floor 5): the paper's equation on one screen (`guidance.py`), the loop, and the engine."""
