"""Policies that are mixed while decoding: `mod` and `sum` add the log-probabilities of single-principle policies.

    log pi(a) = log p(a) + sum_k v_k (log p_k(a) - log p(a))       p the policy, p_k trained by DPO for principle k

mod   v = w / sum |w|: with positive weights the plain policy cancels out (Shi et al. 2024, arXiv 2406.18853)
sum   v = w: every log-ratio at its full strength, as a reward model that gives token rewards (Xu et al. 2024,
      GenARM, arXiv 2410.08193)
"""

from __future__ import annotations

from abc import abstractmethod
from contextlib import ExitStack

from pad_cli.evaluation.contract import EvalContext
from pad_cli.evaluation.methods.competing import Competing, each_alone
from pad_cli.evaluation.methods.competitors import Goal, answer_mixed, attached, normalised
from pad_cli.models.adapter import Adapter
from pad_cli.models.language_model import LanguageModel
from pad_cli.recipe import DecodingSettings
from pad_cli.records import BenchmarkItem, Generation

_NOTHING = 1e-9  # a weight below this is the rest of a rounding


class _Mixed(Competing):
    """What the two have in common."""

    def _goal(self, subject: EvalContext, item: BenchmarkItem) -> Goal:
        return self._competitors.named(subject, item)

    def _trained_for(self, goal: Goal) -> list[Goal]:
        return each_alone(goal)

    def _answer(
        self, subject: EvalContext, goal: Goal, items: list[BenchmarkItem], settings: DecodingSettings
    ) -> list[Generation]:
        policy, shares = subject.policy, self._shares(goal) if goal else {}
        with ExitStack() as stack:
            voices: list[tuple[Adapter | None, float]] = [(None, 1 - sum(shares.values()))]
            for name, share in shares.items():
                directory = self._competitors.adapter(policy, {name: 1.0}).directory
                voices.append((stack.enter_context(attached(policy, directory)), share))
            heard = [(adapter, weight) for adapter, weight in voices if abs(weight) > _NOTHING]
            return answer_mixed(subject, items, _among_all(settings, policy), heard)

    @abstractmethod
    def _shares(self, goal: Goal) -> Goal:
        """v_k of each principle."""


class Mod(_Mixed):
    """Multi-objective decoding."""

    name = "mod"
    description = (
        "the weighted mean of the log-probabilities of one DPO-trained policy a principle (MOD); free text has no "
        "effect, and with nothing left the plain policy answers"
    )

    def _shares(self, goal: Goal) -> Goal:
        return normalised(goal)


class Sum(_Mixed):
    """A sum of token rewards, each the log-ratio of a trained policy."""

    name = "sum"
    description = (
        "the policy's log-probabilities plus the full-strength weighted sum of the log-ratios of one DPO-trained "
        "policy a principle (GenARM-like); free text has no effect, and with nothing left the plain policy answers"
    )

    def _shares(self, goal: Goal) -> Goal:
        return goal


def _among_all(settings: DecodingSettings, policy: LanguageModel) -> DecodingSettings:
    """Decoding among the C best tokens of the mixture, not of its first voice."""
    best = min(settings.candidates, settings.top_k or settings.candidates)
    return settings.model_copy(update={"candidates": policy.vocabulary_size, "top_k": best})
