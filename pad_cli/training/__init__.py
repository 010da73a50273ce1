"""Training (floor 5): preference pairs to a reward model.

train.py              a recipe to a checkpoint; run.py its stages, material.py what they work on

On cached states, by our own loop:
state_reader.py       one pass of the frozen backbone; hidden_cache.py keeps what it read
token_rewards.py      differentiable token rewards over that cache; pair_table.py pairs as tensors
stages.py             the stages `heads` and `encoder`; fit.py the loop, snapshot.py where it stands
calibration.py        what guidance weight 1 means

Through the whole backbone, by TRL:
trainer.py            the stages `adapter` and `joint`; lesson.py rewards and validation, lora.py PEFT's side

What came of it:
metrics.py            pair accuracy, margins, policy accuracy, with intervals; worded.py preferences in words
baselines.py          length, and a bag of words, on the same rows
diagnostics.py        length, calibration, how heads stand to each other, overfitting
facts.py              all of it in one record, from conclusion.py; report*.py and charts.py show it
evaluate_checkpoint.py       a finished reward model on other pairs
estimate.py           what a recipe will cost
pretrain.py           a small language model from documents (the embedded world's policies)
"""
