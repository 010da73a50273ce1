"""`embedded/enlarged`, too large to ship: derived from `embedded/large` on first use, and kept in `PAD_HOME`."""

from __future__ import annotations

from pathlib import Path

from pad_cli.models.enlarge import enlarge
from pad_cli.models.language_model import load_language_model
from pad_cli.recipe import ModelSettings
from pad_cli.system.progress import note, stage
from pad_cli.system.runs import home, in_turn, whole_directory

_WIDTH, _LAYERS = 4, 8  # times the width of `large`, and blocks more than it


def enlarged_directory() -> Path:
    """The large policy, enlarged: a directory named by that policy's fingerprint.

    Raises:
        StorageError: `PAD_HOME` cannot be written.
    """
    large = load_language_model(ModelSettings(model="embedded/large", dtype="float32", device="cpu"))
    directory = home() / f"embedded-enlarged-{_WIDTH}-{_LAYERS}-{large.fingerprint}"
    if not directory.is_dir():
        with in_turn(directory):
            if not directory.is_dir():
                note(f"Writing the enlarged policy to {directory} (once).")
                with stage("Enlarging the large policy"), whole_directory(directory) as scratch:
                    enlarge(large.model, _WIDTH, _LAYERS).save_pretrained(scratch)
                    large.tokenizer.save_pretrained(scratch)
    return directory
