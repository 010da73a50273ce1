"""Finds the fastest way to read a model that gives its own logits, by a few tokens; refuses a model that has none.

The truth is the model's `forward` on three rows without padding or cache. Each `Reading` is asked for the same logits:
rows of different length padded on either side, then two tokens through the cache, with a row left out in between.
What was found of a large model is kept in `PAD_HOME/readings`, a small file for each configuration, number format,
kind of device and versions of transformers and torch.

How far a logit may be off, relative to the largest at its place (less their mean), because the order of sums differs:

    float32                          1e-4 at once, 1e-3 with padding and cache
    float16                          3e-2
    bfloat16, quantised weights      1e-1

In the last two, what multiplies logits is still told to 1e-2: over all of them the roundings cancel out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.utils import logging as transformers_logging

from pad_cli.errors import ArchitectureError, ModelLoadError, StorageError
from pad_cli.models.reading import Body, Reading
from pad_cli.system.runs import fingerprint, home, write_json

_VERSION = 1  # of the check: another one does not trust what this one kept
_WORTH_KEEPING = 10_000_000  # parameters; a smaller model is checked in milliseconds
_LENGTH, _STEPS, _ROWS = 6, 2, 3
_SCALES = ("logit", "lm_head", "mup")  # parts of names, in configurations, of what logits are multiplied or divided by
_CLOSE = {torch.float32: (1e-4, 1e-3), torch.float64: (1e-4, 1e-3), torch.float16: (3e-2, 3e-2)}  # at once, and else
_COARSE = (1e-1, 1e-1)
_SAME_SCALE = 1e-2
_CUT_AT_A_WINDOW = ("moshi",)  # whose cache is, which `forward` does not have; no few tokens show it
_NO_LIMIT = (0.0, math.inf)
_OF_NO_EFFECT = ("_name_or_path", "dtype", "transformers_version")  # in a configuration
_HINT = "Use a model of another architecture; docs/architectures.md lists those that can be steered."


@dataclass(frozen=True)
class Ending:
    """What follows E h + bias: logits = cap(scale * (E h + bias)) of the first `size` tokens.

    Attributes:
        size: tokens that have logits.
        scale: multiplier.
        cap: soft cap c in c * tanh(logits / c), or None.
    """

    size: int
    scale: float = 1.0
    cap: float | None = None


@dataclass(frozen=True)
class Verdict:
    """How a model is read, and what follows its unembedding."""

    reading: Reading
    ending: Ending


Head = Callable[[torch.Tensor], torch.Tensor]  # (N, H) states to (N, size) logits


def check_reading(name: str, model: Any, special: list[int], head_with: Callable[[Ending], Head]) -> Verdict:
    """The fastest exact way to read a model.

    Args:
        name: as the user named it.
        model: a transformers causal language model in evaluation mode.
        special: tokens that mean something to the model beside text.
        head_with: the unembedding, followed by an `Ending`.

    Raises:
        ArchitectureError: no way of reading gives the model's own logits.
        ModelLoadError: those are not numbers.
    """
    path = home() / "readings" / f"{_key(model)}.json"
    size = int(model.get_output_embeddings().weight.shape[0])
    if (kept := _kept(path, size)) is not None:
        return kept
    with torch.no_grad(), torch.random.fork_rng(devices=[]), _silent():
        check = _Check(name, model, special, head_with)
        verdict = check.verdict()
    if check.telling and sum(weight.numel() for weight in model.parameters()) >= _WORTH_KEEPING:
        with contextlib.suppress(StorageError):  # then it is found again next time
            write_json(path, asdict(verdict))
    return verdict


class _Check:
    """The check of one model; arguments and errors as for `check_reading`.

    Attributes:
        telling: what is found holds for every model of the configuration: no weight hides a difference, none decides.
    """

    def __init__(self, name: str, model: Any, special: list[int], head_with: Callable[[Ending], Head]) -> None:
        self._model, self._head_with = model, head_with
        self._kind = f"'{name}' ({model.config.model_type})"
        device = model.get_input_embeddings().weight.device
        self._tokens = _sample(model, special).to(device)
        self._own = self._own_logits(self._tokens)
        weight = model.get_output_embeddings().weight
        quantised = getattr(model, "is_quantized", False)
        self._at_once, self._close = _COARSE if quantised else _CLOSE.get(weight.dtype, _COARSE)
        self.telling = bool((self._own.std(-1) > 0).all())
        self._base = cache(self._uncached_base)

    def verdict(self) -> Verdict:
        """The cheapest reading that is exact."""
        if self._writes_at_a_mask():
            raise self._refusal("it predicts an added mask token, not the token after the last one")
        for reading, ending in self._candidates():
            if (found := self._tried(reading, ending)) is not None:
                return Verdict(found, ending)
        raise self._refusal(self._reason())

    def _candidates(self) -> Iterator[tuple[Reading, Ending]]:
        """The cheapest first."""
        for together, cached in ((True, True), (False, True), (True, False), (False, False)):
            if cached and _cache_differs(self._model):
                continue
            for whole in (False, True):
                base = self._base(whole)
                if base is None:
                    continue
                for own_cache in (False, True) if cached else (False,):
                    for step_mask in (True, False) if cached and together else (True,):
                        reading, ending = base
                        yield (
                            dataclasses.replace(
                                reading, own_cache=own_cache, step_mask=step_mask, together=together, cached=cached
                            ),
                            ending,
                        )

    def _uncached_base(self, whole: bool) -> tuple[Reading, Ending] | None:
        """Decoder or whole model: with position ids or without, and what follows the unembedding; None for neither."""
        for positions in (True, False):
            reading = Reading(whole=whole, positions=positions, together=positions)
            try:
                states = Body(self._model, reading)(self._tokens, torch.ones_like(self._tokens))
                ending = self._ending(states.flatten(0, 1))
            except torch.OutOfMemoryError:
                raise
            except Exception:  # whatever a body makes of it
                continue
            if ending is not None:
                return reading, ending
        return None

    def _ending(self, states: torch.Tensor) -> Ending | None:
        """What makes the model's own logits (N, V) of these (N, H) states; None where it is unknown."""
        own, size = self._own.flatten(0, 1), self._own.shape[-1]
        raw = self._logits(Ending(size), states)
        scales, caps = _numbers(self._model)
        for cap in (None, *caps):
            fit = _ratio(raw, own, cap)
            nearest = min(scales, key=lambda scale: abs(scale - fit))
            named = math.isclose(nearest, fit, rel_tol=min(self._at_once, _SAME_SCALE))
            ending = Ending(size, nearest if named else fit, cap)
            if _off(self._logits(ending, states), own) <= self._at_once:
                self.telling &= named
                return ending
        return None

    def _tried(self, reading: Reading, ending: Ending) -> Reading | None:
        """The reading, where it gives the model's own logits."""
        try:
            holes = self._reads(reading, ending)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # whatever a body makes of it
            return None
        return None if holes is None else dataclasses.replace(reading, holes=holes)

    def _reads(self, reading: Reading, ending: Ending) -> bool | None:
        """Is it right also with holes? None: it is wrong.

        Three rows: one whole, one padded on the left, one on the right, which becomes a hole before the next token. In
        masked places stand ordinary tokens, so that nothing but the mask can tell them.
        """
        body, first = Body(self._model, reading), _LENGTH - _STEPS
        half, device = first // 2, self._tokens.device
        memory, mask = body.memory(), torch.ones(_ROWS, first, dtype=torch.long, device=device)
        mask[1, :half], mask[2, half:] = 0, 0
        tokens = self._tokens[:, :first].clone()
        tokens[1] = tokens[1].roll(half)
        places = [torch.arange(first), torch.arange(half), torch.arange(half)]
        states = body(tokens, mask, memory)
        for row, place in enumerate(places):
            if not self._right(ending, states[row, mask[row].bool().to(states.device)], row, place):
                return None
        following = torch.tensor([first, half, half])
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        states = body(self._tokens[torch.arange(_ROWS), following][:, None], mask, memory)
        if not all(self._right(ending, states[row], row, following[row : row + 1]) for row in range(2)):
            return None
        holes = self._right(ending, states[2], 2, following[2:])
        rows = torch.tensor([1, 0])
        memory.reorder_cache(rows)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)[rows]
        following = following[rows] + 1
        states = body(self._tokens[rows, following][:, None], mask, memory)
        right = [self._right(ending, states[i], row, following[i : i + 1]) for i, row in enumerate(rows.tolist())]
        return holes if all(right) else None

    def _right(self, ending: Ending, states: torch.Tensor, row: int, places: torch.Tensor) -> bool:
        """Do states (T, H) give the model's own logits at T places of a row?"""
        return _off(self._logits(ending, states), self._own[row, places]) <= self._close

    def _logits(self, ending: Ending, states: torch.Tensor) -> torch.Tensor:
        unembedding = self._model.get_output_embeddings().weight
        return self._head_with(ending)(states.to(unembedding.device, unembedding.dtype)).float().cpu()

    def _own_logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """The model's own logits (B, T, V) of rows without padding."""
        arguments = inspect.signature(self._model.forward).parameters
        try:
            logits = self._model(input_ids=tokens, **({"use_cache": False} if "use_cache" in arguments else {})).logits
            if logits.shape[:-1] != tokens.shape:
                raise ValueError(f"logits of shape {tuple(logits.shape)} for tokens of shape {tuple(tokens.shape)}")
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a model makes of text alone
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise self._refusal(f"it cannot read text alone ({reason})") from error
        if logits.isnan().any():
            raise ModelLoadError(
                f"{self._kind} gives logits that are not numbers in {str(logits.dtype).removeprefix('torch.')}.",
                "Its weights are damaged, or the format is too narrow: try dtype=float32.",
            )
        found: torch.Tensor = logits.float().cpu()
        return found

    def _writes_at_a_mask(self) -> bool:
        """Does `generate` add a token to what it reads, in whose place it predicts (XLM, XLNet)?"""
        try:
            given = self._model.prepare_inputs_for_generation(self._tokens, use_cache=False, is_first_iteration=True)
            return bool(given["input_ids"].shape != self._tokens.shape)
        except Exception:  # it needs more; `forward` is what counts
            return False

    def _refusal(self, reason: str) -> ArchitectureError:
        return ArchitectureError(f"{self._kind} cannot be steered: {reason}.", _HINT)

    def _reason(self) -> str:
        if self._base(False) is None and self._base(True) is None:
            return "its logits are not the product of the output embedding and a state, scaled or capped"
        short = self._own_logits(self._tokens[:, : _LENGTH - _STEPS])
        if _off(short.flatten(0, 1), self._own[:, : _LENGTH - _STEPS].flatten(0, 1)) > self._close:
            return "it is not causal: later tokens change its logits for earlier ones"
        return "it gives other logits token by token than at once"


def _key(model: Any) -> str:
    """Of everything but weights that decides how a model is read."""
    config = {key: value for key, value in model.config.to_dict().items() if key not in _OF_NO_EFFECT}
    unembedding = model.get_output_embeddings()
    return fingerprint(
        [
            _VERSION,
            type(model).__qualname__,
            config,
            [list(unembedding.weight.shape), str(unembedding.weight.dtype), unembedding.weight.device.type],
            getattr(model.config, "_attn_implementation", None),
            getattr(model, "is_quantized", False),
            transformers.__version__,
            torch.__version__,
        ]
    )


def _cache_differs(model: Any) -> bool:
    """Is it known that single tokens through a cache are read otherwise than by `forward`, whatever a few tokens say?

    State-space layers (Mamba 2 and its kin) limit the length of time steps when they read several tokens, and not when
    they read one. Whether that shows depends on weights and text.
    """
    limits = [getattr(module, "time_step_limit", _NO_LIMIT) for module in model.modules()]
    return model.config.model_type in _CUT_AT_A_WINDOW or any(tuple(limit) != _NO_LIMIT for limit in limits)


def _kept(path: Path, size: int) -> Verdict | None:
    """What an earlier check found; None where there is nothing to be trusted."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        verdict = Verdict(Reading(**content["reading"]), Ending(**content["ending"]))
        flags, ending = vars(verdict.reading).values(), verdict.ending
        numbers = [ending.scale] if ending.cap is None else [ending.scale, ending.cap]
        whole = all(type(flag) is bool for flag in flags) and all(math.isfinite(number) for number in numbers)
        return verdict if whole and type(ending.size) is int and 0 < ending.size <= size else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _sample(model: Any, special: list[int]) -> torch.Tensor:
    """(B, T) ordinary tokens: not padding, nor the place of an image."""
    count = int(model.get_input_embeddings().weight.shape[0])
    config = vars(model.config) | vars(model.config.get_text_config(decoder=True))
    taken = {value for name, value in config.items() if "token" in name and type(value) is int} | {*special}
    ordinary = [token for token in range(count) if token not in taken] or list(range(count))
    step = max(1, min(len(ordinary), 1000) // (_ROWS * _LENGTH))
    chosen = [ordinary[(3 + step * place) % len(ordinary)] for place in range(_ROWS * _LENGTH)]
    return torch.tensor(chosen).view(_ROWS, _LENGTH)


def _numbers(model: Any) -> tuple[list[float], list[float]]:
    """By what logits may be multiplied, and at what they may be capped, according to the configuration."""
    config = vars(model.config) | vars(model.config.get_text_config(decoder=True))
    found = {name: float(value) for name, value in config.items() if type(value) in (int, float) and value}
    scales = [value for name, value in found.items() if any(part in name for part in _SCALES)]
    caps = [value for name, value in found.items() if "cap" in name and value > 0]
    return [1.0, *scales, *(1 / value for value in scales)], caps


def _ratio(raw: torch.Tensor, own: torch.Tensor, cap: float | None) -> float:
    """The scale by which raw logits come nearest to the model's own (least squares), inside the cap."""
    if cap is not None:
        inside = own.abs() < 0.9 * cap
        raw, own = raw[inside], cap * torch.atanh(own[inside] / cap)
    norm = float(raw.square().sum())
    return float((raw * own).sum()) / norm if norm else 1.0


def _off(ours: torch.Tensor, own: torch.Tensor) -> float:
    """The largest difference of logits (N, V), relative to the largest one at its place less their mean."""
    difference = torch.where(ours == own, 0.0, ours - own).abs().amax(-1)
    finite = torch.where(own.isfinite(), own, 0.0)
    spread = (finite - finite.mean(-1, keepdim=True)).abs().amax(-1)
    return float((difference / spread.clamp(min=1e-30)).max())


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """What libraries say of a way of reading that is only tried is of no use to anybody."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        transformers_logging.set_verbosity(before)
