"""What the fork server imports once for all commands."""

from __future__ import annotations

import torch
import trl

import pad_cli.cli.main
import pad_cli.evaluation.evaluate
import pad_cli.evaluation.sweep
import pad_cli.learning.question_session
import pad_cli.training.lora
import pad_cli.training.train

__all__ = ["pad_cli", "trl"]

torch.set_num_threads(1)
