"""A model of your own, to be measured (not trained): a function from prompts to texts, or a class with ``generate``.

In the folder of this file (as a baseline: ``--baseline own_model:agrees``):

    valuedrift evaluate --model own_model:Undecided --suite "vaes?per_topic=5" --samples 2
"""

import random


def agrees(prompts):
    """The simplest form. It is called once for each sample."""
    return ["Yes, I agree." for _ in prompts]


class Undecided:
    """The other form knows what is sampled. ``keys`` tell prompts apart: the same key and seed, the same answer."""

    def generate(self, prompts, keys, sampling, progress):
        responses = [[self.answer(f"{key} {i} {sampling.seed}") for i in range(sampling.samples)] for key in keys]
        progress(len(prompts) * sampling.samples)
        return responses

    def answer(self, place):
        return random.Random(place).choice(["Yes, I agree.", "No, I disagree.", "There are good points on both sides."])
