"""Between a policy and a backbone whose vocabularies differ: both write text, and text is what they share.

An answer in the policy's tokens is a string of bytes. The backbone reads its own tokens of that string, as far as it
consists of whole characters. A candidate token of the policy is therefore a change of the backbone's tokens: usually
some are added, and sometimes the last ones are replaced ("hum" + "orous" may be one token there).
"""

from __future__ import annotations

from functools import partial

from pad_cli.errors import VocabularyError
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import end_of_turn, whole_characters

_PROBES = ("The Cat sat.", "x = 1,000;", "line\nline", "naïve Größe", "日本", "𠮷 🦜")


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
        decode = partial(self._policy.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return whole_characters(decode, [token for token in written if token not in self._silent]).lstrip()

    def tokens(self, written: list[int]) -> list[int]:
        """The backbone's tokens of all that the policy has `written`, whose last token may be an end of sequence."""
        text = self.text(written)
        tokens = self._encode(self._prefix + text) if text else []
        if written and written[-1] in self._ends:
            tokens.append(self._end_of_turn)
        return tokens

    def _encode(self, text: str) -> list[int]:
        return list(self._backbone(text, add_special_tokens=False)["input_ids"])
