"""The order of prompts in stages that sample responses: the same in a training that is resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized

from trl.trainer.utils import RepeatSampler


class PromptSampler(RepeatSampler):  # type: ignore[misc]  # TRL has no usable types
    """TRL's sampler, shuffled anew in each epoch by seed and epoch alone.

    TRL's own draws all shuffles from one generator, which begins again when a training is resumed.
    """

    def __init__(
        self,
        prompts: Sized,
        *,
        responses: int,
        batch_size: int,
        repeats: int,
        updates: int,
        seed: int,
        step: Callable[[], int],
    ) -> None:
        """Settings.

        Args:
            prompts: the training data.
            responses: to each prompt; it is given so often in a row.
            batch_size: prompts that are answered at once, in all processes together.
            repeats: how often such a batch is given.
            updates: optimizer steps on such a batch.
            seed: of the training.
            step: the training's optimizer steps so far.
        """
        super().__init__(
            prompts, mini_repeat_count=responses, batch_size=batch_size, repeat_count=repeats, shuffle=True, seed=seed
        )
        # Asked anew in each pass: when the sampler is made, a resumed training has not read its step yet.
        self.epoch: Callable[[], int] = lambda: step() // (len(prompts) // batch_size * updates)

    def __iter__(self) -> Iterator[int]:
        """Indices of prompts."""
        self.generator.manual_seed(self.seed + self.epoch())
        yield from super().__iter__()
