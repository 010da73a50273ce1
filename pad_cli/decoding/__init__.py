"""Guided decoding (floor 5): the loop, the paths of policy and reward model, and the engine."""
