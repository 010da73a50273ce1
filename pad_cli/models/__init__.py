"""Tensors with weights (floor 4): language models, preference heads, the preference encoder, the reward model."""
