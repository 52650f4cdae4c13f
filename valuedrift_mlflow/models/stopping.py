"""When the responses of a batch have ended: thoughts and answers have lengths of their own, and texts may end one.

Measurements, rollouts and samplers elsewhere (vLLM) are all read by ``Ends``: while they speak, or afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from valuedrift_mlflow.inputs.thoughts import begun, ended
from valuedrift_mlflow.models.ending import stop_token

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from valuedrift_mlflow.models.speech import Speech

_FIRST = 16  # a response that thinks says so within so many tokens; later marks are quoted ones
_MARK_TOKENS = 32  # no mark of a thought is longer


class Ends:
    """A stopping criterion of transformers: says of every row of a batch whether its response has ended.

    A thought ends the response where it reaches its budget; the answer after it is counted from its own first token.
    The model's end tokens are left to transformers.

    Attributes:
        kept: of every row, how many of its tokens belong to the response; None while it goes on.
        stopped: of every row, whether a text of ``stop`` has ended it, the tokens of which are the last ones kept.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, speech: Speech, max_new_tokens: int, width: int, opens: Sequence[bool]
    ) -> None:
        """Settings.

        Args:
            tokenizer: to read what was generated.
            speech: the texts that end an answer, and the budget of a thought.
            max_new_tokens: of an answer.
            width: tokens of the padded prompts.
            opens: of every row, whether its prompt has opened a thought.
        """
        self.kept: list[int | None] = [None] * len(opens)
        self.stopped = [False] * len(opens)
        self._tokenizer = tokenizer
        self._stops = [text for text in speech.stop if stop_token(tokenizer, text) is None]
        self._budget, self._longest, self._width = speech.max_thinking_tokens, max_new_tokens, width
        self._thinking = list(opens)
        self._answer = [0] * len(opens)  # where a row's answer begins
        # Every token has a byte at least, so that a text is in as many tokens as it has bytes.
        self._window = max((len(text.encode()) for text in self._stops), default=0) + 1
        self._enough = max(self._window, _MARK_TOKENS)  # tokens from the end that are read

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        """True for the rows that have ended: shape (rows,)."""
        import torch

        # Tokens are read on the CPU: (rows, n), of which the last ones are enough.
        count = input_ids.shape[1] - self._width
        recent = input_ids[:, self._width :][:, -self._enough :].tolist()
        for row, tokens in enumerate(recent):
            self._read_on(row, tokens, count)
        return torch.tensor([kept is not None for kept in self.kept], device=input_ids.device)

    def read(self, row: int, tokens: Sequence[int]) -> None:
        """Read a whole response as if it were being generated."""
        for count in range(1, len(tokens) + 1):
            if self.kept[row] is not None:
                return
            self._read_on(row, list(tokens[max(0, count - self._enough) : count]), count)

    def hears(self, row: int, tokens: Sequence[int]) -> bool:
        """Read the newest of a response's tokens, as each of them comes; whether it has ended."""
        self._read_on(row, list(tokens[-self._enough :]), len(tokens))
        return self.kept[row] is not None

    def _read_on(self, row: int, recent: list[int], count: int) -> None:
        if self.kept[row] is None and self._has_ended(row, recent, count):
            self.kept[row] = count

    def _has_ended(self, row: int, recent: list[int], count: int) -> bool:
        if not self._thinking[row] and self._answer[row] == 0 and count <= _FIRST:
            self._thinking[row] = begun(self._read(recent))
        if self._thinking[row]:
            if not ended(self._read(recent)):
                return count >= self._budget
            self._thinking[row], self._answer[row] = False, count
        length = count - self._answer[row]
        if length >= self._longest:
            return True
        if not self._stops or length == 0:
            return False
        text = self._read(recent[-min(self._window, length) :])
        self.stopped[row] = any(stop in text for stop in self._stops)
        return self.stopped[row]

    def _read(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=False))


def rollout_ends(
    tokenizer: PreTrainedTokenizerBase, speech: Speech, longest: int, width: int, rows: int
) -> Ends | None:
    """What ends the responses of a rollout: the texts of ``stop``; None where all of these are tokens.

    A rollout has one length for thought and answer together, which its sampler keeps: here it bounds both. As in a
    measurement what stands in a thought ends nothing.

    Args:
        tokenizer: of the policy.
        speech: how the policy is made to speak.
        longest: tokens of a response.
        width: tokens of the padded prompts.
        rows: responses.
    """
    if all(stop_token(tokenizer, text) is not None for text in speech.stop):
        return None
    whole = replace(speech, max_thinking_tokens=longest)
    return Ends(tokenizer, whole, longest, width, [bool(speech.opening(tokenizer))] * rows)
