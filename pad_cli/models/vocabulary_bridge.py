"""Between a policy and a backbone whose vocabularies differ: both write text, and text is what they share.

An answer in the policy's tokens is a string of bytes. The backbone reads its own tokens of that string, as far as it
consists of whole characters. A candidate token of the policy is therefore a change of the backbone's tokens: usually
some are added, and sometimes the last ones are replaced ("hum" + "orous" may be one token there).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from pad_cli.errors import VocabularyError
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import end_of_turn, whole_characters

_PROBES = ("The Cat sat.", "x = 1,000;", "line\nline", "naïve Größe", "日本", "𠮷 🦜")
_WINDOW = 16  # tokens of the policy at the end of an answer that are always read again
_AGREED = 2  # tokens after which window and answer are taken to agree, and which must stay


@dataclass
class KnownAnswer:
    """What is settled of one answer, so that only its last tokens, the window, are read again.

    Attributes:
        tokens: settled tokens of the backbone.
        start: the window begins with this token of the policy.
        lead: the window's first tokens in the backbone's vocabulary; settled ones stand in their place.
    """

    tokens: list[int] = field(default_factory=list)
    start: int = 0
    lead: list[int] = field(default_factory=list)


class VocabularyBridge:
    """Re-tokenises answers that a policy writes, for a backbone; a VocabularyError if its tokenizer changes text."""

    def __init__(self, policy: LanguageModel, backbone: LanguageModel) -> None:
        self._policy, self._backbone = policy.tokenizer, backbone.tokenizer
        self._ends = policy.end_tokens
        added = self._policy.added_tokens_decoder.items()
        self._silent = {*self._ends, *self._policy.all_special_ids, *(n for n, token in added if token.special)}
        for probe in _PROBES:
            read = self._backbone.decode(self._encode(probe), clean_up_tokenization_spaces=False)
            if read.strip() != probe:
                raise VocabularyError(
                    f"The policy '{policy.name}' and the reward model's backbone '{backbone.name}' have different "
                    f"vocabularies, and the backbone's does not keep text as it is: {probe!r} becomes {read!r}.",
                    "Steer a policy that shares the backbone's tokenizer, or train a reward model on this policy.",
                )
        self._prefix = "" if self._backbone.chat_template else " "  # as `encode_answer` begins an answer
        self._end_of_turn = end_of_turn(self._backbone)

    def text(self, written: list[int]) -> str:
        """The whole characters of an answer, without white space in front."""
        return self._whole_characters(written).lstrip()

    def tokens(self, answer: KnownAnswer, written: list[int]) -> list[int]:
        """The backbone's tokens of all that the policy has `written`, whose last token may be an end of sequence."""
        tokens = self._read(answer, written)
        if written and written[-1] in self._ends:
            tokens.append(self._end_of_turn)
        return tokens

    def settle(self, answer: KnownAnswer, written: list[int]) -> None:
        """Note that the answer begins so: tokens far from its end are not computed again.

        A window is read alone. From where its tokens are those of the whole answer, it can stand for the answer's end.
        (Unigram models choose by the sum over a word. In one that is longer than the window, equal or nearly equal sums
        could still be decided otherwise by what follows; the text is the same.)
        """
        start = len(written) - _WINDOW
        if start < answer.start + _WINDOW:
            return
        whole, window = self._read(answer, written), self._encode(self._whole_characters(written[start:]))
        equal = 0
        while equal < min(len(whole), len(window)) and whole[-1 - equal] == window[-1 - equal]:
            equal += 1
        follow = equal - _AGREED
        if follow < len(window) // 2:
            return
        answer.start, answer.tokens = start, whole[: len(whole) - follow]
        answer.lead = window[: len(window) - follow]

    def _read(self, answer: KnownAnswer, written: list[int]) -> list[int]:
        """The backbone's tokens of the text, without an end."""
        if answer.start:
            window = self._encode(self._whole_characters(written[answer.start :]))
            if window[: len(answer.lead)] == answer.lead:
                return [*answer.tokens, *window[len(answer.lead) :]]
        text = self.text(written)
        return self._encode(self._prefix + text) if text else []

    def _whole_characters(self, written: list[int]) -> str:
        decode = partial(self._policy.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return whole_characters(decode, [token for token in written if token not in self._silent])

    def _encode(self, text: str) -> list[int]:
        return list(self._backbone(text, add_special_tokens=False)["input_ids"])
