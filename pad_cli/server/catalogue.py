"""Model names: `pad`, `base`, and a preference as a name, `pad/humorous+concise=0.5` or `pad/@me`."""

from __future__ import annotations

from collections.abc import Sequence

from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import DataError, PreferenceError, did_you_mean
from pad_cli.profiles import profile_names
from pad_cli.server.api_error import ApiError

STEERED, PLAIN = "pad", "base"


class Catalogue:
    """What `model` may be.

    Args:
        engine: knows principles and profiles, and whether the policy may answer alone.
        default: specifications that `pad` alone stands for.
    """

    def __init__(self, engine: PadEngine, default: Sequence[str]) -> None:
        self._engine, self._default = engine, tuple(default)

    def names(self) -> list[str]:
        """Those that are listed: principles and profiles one by one; they may be joined by `+`."""
        model = self._engine.reward_model
        principles = () if model is None else model.principles
        plain = [] if self._engine.always else [PLAIN]
        profiles = [f"@{name}" for name in profile_names()]
        return [STEERED, *plain, *(f"{STEERED}/{name}" for name in [*principles, *profiles])]

    def specs(self, name: str) -> list[str] | None:
        """The preference that a model name stands for; None for the policy alone.

        Raises:
            ApiError: 404, there is no such model.
        """
        if name == PLAIN and not self._engine.always:
            return None
        if name == STEERED:
            return list(self._default)
        start, slash, rest = name.partition("/")
        if start != STEERED or not slash:
            raise self._unknown(name, did_you_mean(name, self.names()))
        specs = [part.strip() for part in rest.split("+")]
        for spec in specs:
            self._check(name, spec)
        return specs

    def _check(self, name: str, spec: str) -> None:
        """Only names are names: free text is asked for by `pad.preference`."""
        try:
            preference = self._engine.preference([spec])
        except (PreferenceError, DataError) as error:
            raise self._unknown(name, str(error)) from error
        if preference.texts and not spec.startswith("@"):
            hint = did_you_mean(spec, self._engine.reward_model.principles if self._engine.reward_model else ())
            raise self._unknown(name, f"'{spec}' is no principle. {hint} Free text goes into pad.preference.")

    def _unknown(self, name: str, why: str) -> ApiError:
        return ApiError(404, f"There is no model '{name}'. {why}", code="model_not_found", param="model")
