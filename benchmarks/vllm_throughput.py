"""Throughput of vLLM with exported preferences relative to its plain base, interleaved in one process.

Without `--model` a random Llama and random adapters of the output layer stand in: speed does not depend on weights.
Run it in an environment with vLLM (`make test-vllm` makes one without a GPU):

    .venv-vllm/bin/python benchmarks/vllm_throughput.py
    python benchmarks/vllm_throughput.py --model path/to/model --adapters runs/a runs/b runs/c runs/d
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

ROUNDS = 5


def random_model(directory: Path, hidden_size: int, layers: int, vocabulary: int) -> str:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden_size,
        intermediate_size=4 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // 64,
        num_key_value_heads=hidden_size // 64,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    return str(directory)


def random_adapters(directory: Path, model: str, count: int, rank: int) -> list[str]:
    config = LlamaConfig.from_pretrained(model)
    paths = []
    for number in range(count):
        path = directory / f"adapter-{number}"
        lora = LoraConfig(
            r=rank, lora_alpha=rank, target_modules=["lm_head"], base_model_name_or_path=model, inference_mode=True
        )
        lora.save_pretrained(str(path))
        prefix = "base_model.model.lm_head"
        weights = {
            f"{prefix}.lora_A.weight": torch.randn(rank, config.hidden_size) / 100,
            f"{prefix}.lora_B.weight": torch.randn(config.vocab_size, rank) / 100,
        }
        save_file(weights, path / "adapter_model.safetensors", metadata={"format": "pt"})
        paths.append(str(path))
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--adapters", nargs="*", default=[])
    parser.add_argument("--rank", type=int, default=16, help="of random adapters; largest of given ones")
    parser.add_argument("--every-module", action="store_true", help="what vLLM does unless told where LoRA is")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--hidden-size", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--vocabulary", type=int, default=32000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model = asked.model or random_model(Path(scratch) / "model", asked.hidden_size, asked.layers, asked.vocabulary)
        adapters = asked.adapters or random_adapters(Path(scratch), model, 4, asked.rank)
        print(json.dumps(measure(asked, model, adapters), indent=2))


def measure(asked: argparse.Namespace, model: str, adapters: list[str]) -> dict[str, Any]:
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    llm = LLM(
        model,
        skip_tokenizer_init=asked.model is None,
        dtype=asked.dtype,
        enable_lora=True,
        max_loras=len(adapters) + 1,
        max_lora_rank=asked.rank,
        lora_target_modules=None if asked.every_module else ["lm_head"],
        max_model_len=asked.prompt_tokens + asked.new_tokens,
    )
    vocabulary = llm.llm_engine.model_config.get_vocab_size()
    chance = torch.Generator().manual_seed(0)
    tokens = torch.randint(10, vocabulary, (asked.requests, asked.prompt_tokens), generator=chance).tolist()
    prompts = [{"prompt_token_ids": prompt} for prompt in tokens]
    how = SamplingParams(temperature=0, max_tokens=asked.new_tokens, ignore_eos=True, detokenize=False)
    users = [LoRARequest(path, number + 1, path) for number, path in enumerate(adapters)]
    loras = [users[number % len(users)] for number in range(asked.requests)]

    def seconds(requests: list[LoRARequest] | None) -> float:
        start = time.perf_counter()
        llm.generate(prompts, how, lora_request=requests, use_tqdm=False)
        return time.perf_counter() - start

    seconds(None), seconds(loras)  # warm
    times = [(seconds(None), seconds(loras)) for _ in range(ROUNDS)]
    new = asked.requests * asked.new_tokens
    return {
        "requests": asked.requests,
        "adapters": len(adapters),
        "rank": asked.rank,
        "dtype": asked.dtype,
        "every_module": asked.every_module,
        "base_tokens_per_second": round(new / median(base for base, _ in times)),
        "adapters_tokens_per_second": round(new / median(steered for _, steered in times)),
        "ratio": {
            "median": round(median(base / steered for base, steered in times), 3),
            "rounds": [round(base / steered, 3) for base, steered in times],
        },
    }


if __name__ == "__main__":
    main()
