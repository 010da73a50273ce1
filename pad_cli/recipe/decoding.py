"""How answers are decoded: each field has a type, a bound, a unit where it has one, and one sentence."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pad_cli.recipe.models import Settings

Always = dict[str, Annotated[float, Field(gt=0)]]
"""The safety floor of a recipe: principle to its least weight."""


class DecodingSettings(Settings):
    guidance_weight: float = Field(1.0, description="Multiplier of the reward when decoding; 0 is plain decoding.")
    candidates: int = Field(10, ge=1, description="C: the policy's top tokens that compete at each step.")
    reward_ngram: int = Field(
        2, ge=0, description="A token that repeats an n-gram of this many tokens earns no reward; 0 turns this off."
    )
    max_new_tokens: int = Field(128, ge=1, description="Longest answer (tokens).")
    temperature: float = Field(0.0, ge=0, description="0 takes the best candidate; above, sample at this temperature.")
    top_k: int = Field(0, ge=0, description="Sample from this many best candidates; 0 for all of them.")
    top_p: float = Field(1.0, gt=0, le=1, description="Sample from the likeliest candidates that hold this much mass.")
    min_p: float = Field(0.0, ge=0, le=1, description="Sample from candidates at least this share of the best.")
    repetition_penalty: float = Field(1.0, gt=0, description="Penalty on the policy's logits of tokens already read.")
    no_repeat_ngram_size: int = Field(
        0, ge=0, description="The policy never repeats an n-gram of this size; 0: it may."
    )
    seed: int = Field(0, ge=0, description="Seed of sampling; each answer has its own stream.")
    batch_size: int = Field(64, ge=1, description="Answers decoded together.")
    path: Literal["auto", "fused", "paired", "separate"] = Field(
        "auto", description="How policy and reward model read along; the result is the same."
    )
    draft_tokens: Annotated[int, Field(ge=0, le=64)] | Literal["auto"] = Field(
        "auto", description="Tokens that a small reward model drafts for the policy to verify at once; 0 for none."
    )
    policy_reads_preference: bool = Field(
        False, description="The policy's prompt is the reward model's prompt, which may hold the preference."
    )
