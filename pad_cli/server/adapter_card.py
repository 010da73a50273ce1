"""The model card of an exported preference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml


def adapter_card(facts: Mapping[str, Any], policy: str) -> str:
    """A model card in Markdown.

    Args:
        facts: the content of `pad_preference.json`.
        policy: where the language model is that the adapter belongs to.
    """
    front = {"library_name": "peft", "base_model": policy, "tags": ["pad", "personalised-alignment", "lora"]}
    weights = ", ".join(f"`{name}` {weight:+.3g}" for name, weight in facts["weights"].items())
    reduced = f"; reduced, relative error {facts['error']:.2%}" if facts["error"] else ""
    return f"""---
{yaml.safe_dump(front, sort_keys=False)}---

# {facts["preference"]}: a preference for `{policy}`

A LoRA adapter of the output layer that `pad export` made from a personalised reward model. It adds the reward of one
preference to the logits of the language model, which is otherwise unchanged.

| | |
|---|---|
| preference | {facts["preference"]} |
| weights | {weights} |
| guidance weight | {facts["guidance_weight"]:g} |
| rank | {facts["rank"]}{reduced} |
| reward model | `{facts["reward_model"]}` |

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({policy!r}), ".")
```

Other than `pad generate`, it guides the whole vocabulary and not only the policy's likeliest tokens, and it does not
withhold rewards from repetition: expect more of it at high guidance weights. Do not merge it into a model whose
input and output embeddings are one tensor.
"""
