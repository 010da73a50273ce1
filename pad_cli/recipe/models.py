"""Settings that every kind of recipe shares: the strict base class and how a language model is loaded."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelSettings(Settings):
    model: str = Field(
        description="Directory, GGUF file, hub id (`owner/name`, `owner/name/file.gguf`), or `embedded/NAME` of the "
        "embedded world."
    )
    revision: str | None = Field(None, description="Branch, tag or commit on the hub.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Of the loaded weights. auto is the checkpoint's own where the device is fast in it (`pad doctor` "
        "says what is chosen here): else float32 on a CPU, float16 on a GPU. GGUF files: float32.",
    )
    device: str = Field("auto", description="`auto`, `cpu`, `cuda`, `cuda:1`, `mps`; auto takes the first GPU.")
    device_map: (
        Literal["auto", "balanced", "balanced_low_0", "sequential"]
        | Annotated[dict[str, str | Annotated[int, Field(ge=0)]], Field(min_length=1)]
        | None
    ) = Field(None, description="Spread over several devices: `auto`, `balanced`, or module name to device.")
    quantization: Literal["4bit", "8bit"] | None = Field(
        None, description="Pack the body's weights into this many bits while loading (bitsandbytes)."
    )
    attention: str | None = Field(
        None, min_length=1, description="`sdpa`, `eager`, `flash_attention_2`; by default what transformers chooses."
    )

    @model_validator(mode="after")
    def _one_placement(self) -> ModelSettings:
        if self.device_map is not None and self.device != "auto":
            raise ValueError("give either `device` or `device_map`")
        return self

    @model_validator(mode="after")
    def _packed_once(self) -> ModelSettings:
        if self.quantization is not None and self.model.endswith(".gguf"):
            raise ValueError("`quantization` cannot pack a GGUF file: leave it out, or name the model's own weights")
        return self
