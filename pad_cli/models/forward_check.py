"""Finds the fastest mode in which a model gives its own logits, with a few tokens; refuses a model that has none.

The reference is the model's `forward` on three rows without padding or cache. Each `ForwardMode` is asked for the same
logits: rows of different length padded on either side, then two tokens through the cache, with a row left out in
between. That takes five forward passes in most cases.

How far a logit may be off, relative to the largest at its place (less their mean), because the order of sums differs:

    float32                          1e-4 at once, 1e-3 with padding and cache
    float16                          3e-2
    bfloat16, quantised weights      1e-1

In the last two, a scale of the logits is still determined to 1e-2: over all of them the roundings cancel out.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any, TypeVar

import torch

from pad_cli.equation import LogitHead
from pad_cli.errors import ArchitectureError, ModelLoadError, ResourceError
from pad_cli.models.forward import Body, ForwardMode, is_out_of_memory
from pad_cli.models.loading import quiet_transformers

_LENGTH, _STEPS, _ROWS = 6, 2, 3
_SCALES = ("logit", "lm_head", "mup")  # parts of names, in configurations, of what logits are multiplied or divided by
_CLOSE = {torch.float32: (1e-4, 1e-3), torch.float64: (1e-4, 1e-3), torch.float16: (3e-2, 3e-2)}  # at once, and else
_COARSE = (1e-1, 1e-1)
_SAME_SCALE = 1e-2
_CUT_AT_A_WINDOW = ("moshi",)  # whose cache is, which `forward` does not have; no few tokens show it
_NO_LIMIT = (0.0, math.inf)
_HINT = "Use a model of another architecture; docs/architectures.md lists those that can be steered."

Result = TypeVar("Result")


def check_forward(name: str, model: Any, special: list[int]) -> tuple[ForwardMode, LogitHead]:
    """The fastest exact way to run a model, and its unembedding with what follows that.

    `special` are tokens that mean something to the model beside text.

    Raises:
        ArchitectureError: no mode gives the model's own logits.
        ModelLoadError: those are not numbers.
        ResourceError: memory is too small for a few tokens.
    """
    quiet = warnings.catch_warnings(action="ignore")  # about a mode that is only tried
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), quiet_transformers(), quiet:
            return _Check(name, model, special).fastest()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        hint = "Free some, or use a smaller model."
        raise ResourceError(f"Memory is too small for a few tokens of '{name}'.", hint) from error


class _Check:
    """The check of one model; arguments and errors as for `check_forward`."""

    def __init__(self, name: str, model: Any, special: list[int]) -> None:
        self._model, self._unembedding = model, model.get_output_embeddings()
        self._config = vars(model.config) | vars(model.config.get_text_config(decoder=True))
        self._kind = f"'{name}' ({model.config.model_type})"
        self._tokens = self._sample_tokens(special)
        self._own = self._own_logits(self._tokens)
        quantised = getattr(model, "is_quantized", False)
        self._at_once, self._close = _COARSE if quantised else _CLOSE.get(self._unembedding.weight.dtype, _COARSE)

    def fastest(self) -> tuple[ForwardMode, LogitHead]:
        """The cheapest exact mode: the decoder in batches, the full model in batches, or either with each row alone."""
        if self._predicts_at_a_mask():
            raise self._refusal("it predicts an added mask token, not the token after the last one")
        at_once = []
        for full_model in (False, True):
            if (fitted := self._fit(full_model)) is None:
                continue
            at_once.append(fitted)
            mode, head = fitted
            for own_cache, step_mask in () if _cache_differs(self._model) else product((False, True), (True, False)):
                mode = replace(mode, alone=False, own_cache=own_cache, step_mask=step_mask)
                gaps = _attempt(partial(self._is_exact, mode, head))
                if gaps is not None:
                    return replace(mode, gaps=gaps), head
        if not at_once:
            raise self._refusal("its logits are not the product of the output embedding and a state, scaled or capped")
        for mode, head in at_once:
            mode = replace(mode, alone=True)
            if _attempt(partial(self._is_exact, mode, head)):
                return mode, head
        short = self._own_logits(self._tokens[:, : _LENGTH - _STEPS])
        if _deviation(short.flatten(0, 1), self._own[:, : _LENGTH - _STEPS].flatten(0, 1)) > self._close:
            raise self._refusal("it is not causal: later tokens change its logits for earlier ones")
        raise self._refusal("it gives other logits token by token than at once")

    def _fit(self, full_model: bool) -> tuple[ForwardMode, LogitHead] | None:
        """Decoder or full model: with position ids or without, and what follows the unembedding; None for neither."""
        for positions in (True, False):
            mode = ForwardMode(full_model=full_model, positions=positions, alone=not positions)
            if (head := _attempt(partial(self._fit_scale, mode))) is not None:
                return mode, head
        return None

    def _fit_scale(self, mode: ForwardMode) -> LogitHead | None:
        """The head that makes the model's own logits (N, V) of its (N, H) states; None where no scale and cap do.

        The scale is the least-squares fit, or a number of the configuration that is close to it.
        """
        states = Body(self._model, mode)(self._tokens, torch.ones_like(self._tokens)).flatten(0, 1)
        own, size = self._own.flatten(0, 1), self._own.shape[-1]
        bias = getattr(self._unembedding, "bias", None)
        plain = LogitHead(self._unembedding.weight[:size], None if bias is None else bias[:size], 1.0, None)
        raw = _logits(plain, states)
        numbers = {name: float(value) for name, value in self._config.items() if type(value) in (int, float) and value}
        named = [value for name, value in numbers.items() if any(part in name for part in _SCALES)]
        scales = [1.0, *named, *(1 / value for value in named)]
        for cap in (None, *(value for name, value in numbers.items() if "cap" in name and value > 0)):
            fit = _least_squares_scale(raw, own, cap)
            nearest = min(scales, key=lambda scale: abs(scale - fit))
            close = math.isclose(nearest, fit, rel_tol=min(self._at_once, _SAME_SCALE))
            head = replace(plain, scale=nearest if close else fit, cap=cap)
            if _deviation(_logits(head, states), own) <= self._at_once:
                return head
        return None

    def _is_exact(self, mode: ForwardMode, head: LogitHead) -> bool | None:
        """Whether it is right also with gaps; None if it is wrong.

        Three rows: one whole, one padded on the left, one on the right, which becomes a gap before the next token. In
        masked positions stand ordinary tokens, so that nothing but the mask can tell them.
        """
        body, first = Body(self._model, mode), _LENGTH - _STEPS
        half, device = first // 2, self._tokens.device
        memory, mask = body.memory(), torch.ones(_ROWS, first, dtype=torch.long, device=device)
        mask[1, :half], mask[2, half:] = 0, 0
        tokens = self._tokens[:, :first].clone()
        tokens[1] = tokens[1].roll(half)
        places = [torch.arange(first), torch.arange(half), torch.arange(half)]
        states = body(tokens, mask, memory)
        for row, place in enumerate(places):
            if not self._matches(head, states[row, mask[row].bool().to(states.device)], row, place):
                return None
        following = torch.tensor([first, half, half])
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        states = body(self._tokens[torch.arange(_ROWS), following][:, None], mask, memory)
        if not all(self._matches(head, states[row], row, following[row : row + 1]) for row in range(2)):
            return None
        gaps = self._matches(head, states[2], 2, following[2:])
        rows = torch.tensor([1, 0])
        memory.reorder_cache(rows)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)[rows]
        following = following[rows] + 1
        states = body(self._tokens[rows, following][:, None], mask, memory)
        exact = [self._matches(head, states[i], row, following[i : i + 1]) for i, row in enumerate(rows.tolist())]
        return gaps if all(exact) else None

    def _matches(self, head: LogitHead, states: torch.Tensor, row: int, places: torch.Tensor) -> bool:
        """Do states (T, H) give the model's own logits at T places of a row?"""
        return _deviation(_logits(head, states), self._own[row, places]) <= self._close

    def _sample_tokens(self, special: list[int]) -> torch.Tensor:
        """(B, T) ordinary tokens: not padding, nor the place of an image."""
        embedding = self._model.get_input_embeddings().weight
        reserved = {value for name, value in self._config.items() if "token" in name and type(value) is int}
        reserved.update(special)
        ordinary = [token for token in range(len(embedding)) if token not in reserved] or list(range(len(embedding)))
        step = max(1, min(len(ordinary), 1000) // (_ROWS * _LENGTH))
        tokens = [ordinary[(3 + step * place) % len(ordinary)] for place in range(_ROWS * _LENGTH)]
        return torch.tensor(tokens, device=embedding.device).view(_ROWS, _LENGTH)

    def _own_logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """The model's own logits (B, T, V) of rows without padding."""
        arguments = inspect.signature(self._model.forward).parameters
        try:
            logits = self._model(input_ids=tokens, **({"use_cache": False} if "use_cache" in arguments else {})).logits
            if logits.shape[:-1] != tokens.shape:
                raise ValueError(f"logits of shape {tuple(logits.shape)} for tokens of shape {tuple(tokens.shape)}")
        except Exception as error:  # whatever a model makes of text alone
            if is_out_of_memory(error):
                raise
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise self._refusal(f"it cannot read text alone ({reason})") from error
        if logits.isnan().any():
            raise ModelLoadError(
                f"{self._kind} gives logits that are not numbers in {str(logits.dtype).removeprefix('torch.')}.",
                "Its weights are damaged, or the dtype is too narrow: try dtype=float32.",
            )
        own: torch.Tensor = logits.float().cpu()
        return own

    def _predicts_at_a_mask(self) -> bool:
        """Does `generate` add a token to what it reads, in whose place it predicts (XLM, XLNet)?"""
        prepare = self._model.prepare_inputs_for_generation
        inputs = _attempt(lambda: prepare(self._tokens, use_cache=False, is_first_iteration=True)["input_ids"])
        return inputs is not None and inputs.shape != self._tokens.shape

    def _refusal(self, reason: str) -> ArchitectureError:
        return ArchitectureError(f"{self._kind} cannot be steered: {reason}.", _HINT)


def _logits(head: LogitHead, states: torch.Tensor) -> torch.Tensor:
    """(N, V) logits of (N, H) states, in float32 on the CPU."""
    return head(states.to(head.weight.device, head.weight.dtype)).float().cpu()


def _attempt(function: Callable[[], Result]) -> Result | None:
    """What a function returns; None where the model cannot be run like that."""
    try:
        return function()
    except Exception as error:  # a model that is not made for it may raise anything
        if is_out_of_memory(error):
            raise
        return None


def _cache_differs(model: Any) -> bool:
    """Is it known that single tokens through a cache are read otherwise than by `forward`, whatever a few tokens say?

    State-space layers (Mamba 2 and its kin) limit the length of time steps when they read several tokens, and not when
    they read one. Whether that shows depends on weights and text.
    """
    limits = [getattr(module, "time_step_limit", _NO_LIMIT) for module in model.modules()]
    return model.config.model_type in _CUT_AT_A_WINDOW or any(tuple(limit) != _NO_LIMIT for limit in limits)


def _least_squares_scale(raw: torch.Tensor, own: torch.Tensor, cap: float | None) -> float:
    """The scale by which raw logits come nearest to the model's own, inside the cap."""
    if cap is not None:
        inside = own.abs() < 0.9 * cap
        raw, own = raw[inside], cap * torch.atanh(own[inside] / cap)
    norm = float(raw.square().sum())
    return float((raw * own).sum()) / norm if norm else 1.0


def _deviation(ours: torch.Tensor, own: torch.Tensor) -> float:
    """The largest difference of logits (N, V), relative to the largest one at its place less their mean."""
    difference = torch.where(ours == own, 0.0, ours - own).abs().amax(-1)
    finite = torch.where(own.isfinite(), own, 0.0)
    spread = (finite - finite.mean(-1, keepdim=True)).abs().amax(-1)
    return float((difference / spread.clamp(min=1e-30)).max())
