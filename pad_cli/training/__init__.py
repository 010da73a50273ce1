"""Training (floor 5): preference pairs to a reward model. `train.py` tells how."""
