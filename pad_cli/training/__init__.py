"""Training (floor 5): preference pairs to a reward model.

hidden_cache.py   every answer's hidden states, computed once
token_rewards.py  differentiable token rewards over that cache
losses.py         the preference loss, on one screen
stages.py         the stages `heads` and `encoder`
metrics.py        pair accuracy, margins, policy accuracy
calibration.py    what guidance weight 1 means
train.py          a recipe to a checkpoint
pretrain.py       a small language model from documents (the embedded world's policies)
"""
