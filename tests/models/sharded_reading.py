"""What two processes do in test_sharding.py: `torchrun sharded_reading.py DIRECTORY ...`, each holding a model."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from pad_cli.models.distributed import is_sharded, load_sharded, main_reads_first, wait_for_all
from pad_cli.models.language_model import load_language_model
from pad_cli.recipe import ModelSettings
from pad_cli.system.processes import processes

BATCHES = (torch.tensor([[5, 9, 11, 40]]), torch.tensor([[7, 8], [30, 31]]), torch.tensor([[3]]))


def read(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        states: torch.Tensor = model.hidden_states(tokens, torch.ones_like(tokens))
        return states


def main(directories: list[str]) -> None:
    for directory in directories:
        settings = ModelSettings(model=directory, device="cpu")
        whole, part = load_language_model(settings), load_sharded(settings)
        assert part.fingerprint == whole.fingerprint
        assert is_sharded(part.model)
        assert not is_sharded(whole.model)

        blocks = [weight.to_local() for weight in part.model.parameters() if isinstance(weight, DTensor)]
        outside = [weight for weight in part.model.parameters() if not isinstance(weight, DTensor)]
        all_of_it = sum(weight.numel() for weight in whole.model.parameters())
        in_blocks = all_of_it - sum(weight.numel() for weight in outside)
        assert in_blocks > 0.3 * all_of_it
        assert sum(weight.numel() for weight in blocks) <= 0.6 * in_blocks, "half, and what rounding adds"

        own = BATCHES[processes().rank]  # each its own batch, in step
        torch.testing.assert_close(read(part, own), read(whole, own), atol=1e-5, rtol=1e-4)

        done = []
        with main_reads_first(part.model):  # and one for all, as often as it likes
            if processes().main:
                for tokens in BATCHES:
                    torch.testing.assert_close(read(part, tokens), read(whole, tokens), atol=1e-5, rtol=1e-4)
                    done.append(tokens)
        assert len(done) == (len(BATCHES) if processes().main else 0)
        wait_for_all()
        torch.testing.assert_close(read(part, own), read(whole, own), atol=1e-5, rtol=1e-4)
        if processes().main:
            print(directory)
    with main_reads_first(part.model):
        if processes().main:
            read(part, BATCHES[0])
            raise ValueError("on purpose")


if __name__ == "__main__":
    main(sys.argv[1:])
