"""How long do five responses to each of 550 prompts take, beside lm-evaluation-harness and plain ``generate``?

All three ask the same model object with the same prompts: ``TransformersGenerator`` of this package,
``HFLM.generate_until`` of lm-evaluation-harness, and transformers' ``generate`` with ``num_return_sequences=5``,
prompts sorted by length. The batch sizes of both peers are tuned first, on a part of the prompts. Responses of the
random models have 64 tokens in the mean, from 1 to 256. Each side draws by its own random numbers, so that lengths
differ by chance.

    pip install --no-deps lm-eval==0.4.13 evaluate pytablewriter rouge-score sacrebleu sqlitedict word2number \
        more_itertools tabulate DataProperty typepy mbstrdecoder pathvalidate tcolorpy absl-py nltk portalocker \
        colorama lxml jsonlines tabledata
    python benchmarks/sampling.py                              # embedded model and 15M: about an hour
    python benchmarks/sampling.py --models 135M --share 0.04   # a part of the prompts
    python benchmarks/sampling.py --models 15M --share 0.2 --rows 32 64 128 256 512   # ours alone, by rows at once
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import rounds
import torch

from valuedrift_mlflow import suite
from valuedrift_mlflow.models.generation import Sampling, chat_texts, evaluation_mode
from valuedrift_mlflow.models.loading import Loaded

SAMPLES, TEMPERATURE, LONGEST, MEAN = 5, 0.7, 256, 64.0
OURS, HARNESS, PLAIN = "ours", "lm-evaluation-harness", "generate"
Answers = Callable[[Sequence[str], int | None], list[str]]


def ours(loaded: Loaded) -> Answers:
    """This package; rows at once by memory, where they are not given."""

    def run(prompts: Sequence[str], rows: int | None) -> list[str]:
        sampling = Sampling(SAMPLES, TEMPERATURE, LONGEST, rows)
        said = loaded.generator().generate(prompts, [str(at) for at in range(len(prompts))], sampling, lambda _: None)
        return [text for texts in said for text in texts]

    return run


def harness(loaded: Loaded) -> Answers:
    """One request for each response, as the harness does for ``repeats``."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    drawing = {"do_sample": True, "temperature": TEMPERATURE, "top_k": 0, "top_p": 1.0}
    told = {"until": [], "max_gen_toks": LONGEST, **drawing}

    def run(prompts: Sequence[str], rows: int | None) -> list[str]:
        model = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=rows, max_length=2048)
        texts = chat_texts(loaded.tokenizer, prompts)
        asked = [Instance("generate_until", {}, (text, dict(told)), at) for at, text in enumerate(texts * SAMPLES)]
        with evaluation_mode(loaded.model):
            return list(model.generate_until(asked, disable_tqdm=True))

    return run


def plain(loaded: Loaded) -> Answers:
    """What a script would do: batches of prompts of like length."""
    tokenizer = loaded.tokenizer

    def run(prompts: Sequence[str], rows: int | None) -> list[str]:
        texts = sorted(chat_texts(tokenizer, prompts), key=len, reverse=True)
        size, said = max(1, (rows or SAMPLES) // SAMPLES), []
        with evaluation_mode(loaded.model):
            for start in range(0, len(texts), size):
                batch = tokenizer(
                    texts[start : start + size], return_tensors="pt", padding=True, add_special_tokens=False
                )
                ids = loaded.model.generate(
                    input_ids=batch["input_ids"],
                    attention_mask=batch["attention_mask"],
                    do_sample=True,
                    temperature=TEMPERATURE,
                    top_k=0,
                    top_p=1.0,
                    max_new_tokens=LONGEST,
                    num_return_sequences=SAMPLES,
                    eos_token_id=tokenizer.eos_token_id,
                    pad_token_id=tokenizer.pad_token_id,
                )
                said += tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        return said

    return run


def tuned(run: Answers, prompts: Sequence[str], sizes: Sequence[int]) -> int:
    """The number of rows at once with which a side is fastest on some prompts, by CPU time."""
    taken = {}
    for size in sizes:
        start = time.process_time()
        run(prompts, size)
        taken[size] = time.process_time() - start
    print("  rows at once:", ", ".join(f"{size}: {seconds:.1f} s" for size, seconds in taken.items()), flush=True)
    return min(taken, key=lambda size: taken[size])


def once(run: Answers, prompts: Sequence[str], rows: int | None, words: list[float]) -> None:
    """One round of a side; how long its responses are is kept, because each draws its own."""
    said = run(prompts, rows)
    assert len(said) == len(prompts) * SAMPLES
    words.append(sum(len(text.split()) for text in said) / len(said))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=rounds.MODELS, default=["embedded", "15M"])
    parser.add_argument("--share", type=float, default=1.0, help="of the prompts, spread over all of them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tune-share", type=float, default=0.2, help="of those prompts, to tune the peers on")
    parser.add_argument("--peer-rows", type=int, help="rows at once of both peers, where these are not tuned")
    parser.add_argument("--rows", type=int, nargs="+", help="only how long ours takes with so many rows at once")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    every = [item.prompt for item in suite.load("vaes").items]
    prompts = every[:: max(1, round(1 / chosen.share))]
    for name in chosen.models:
        loaded = rounds.load(name, MEAN, TEMPERATURE)
        print(f"{name}: {len(prompts)} prompts x {SAMPLES}", flush=True)
        if chosen.rows:
            tuned(ours(loaded), prompts, chosen.rows)
            continue
        few = prompts[:: max(1, round(1 / chosen.tune_share))]
        peers = {HARNESS: harness(loaded), PLAIN: plain(loaded)}
        # No more rows than there are: a larger batch would be the same.
        sizes = [size for size in (16, 32, 64, 128, 256) if size <= len(few) * SAMPLES] or [len(few) * SAMPLES]
        ours(loaded)(few, None)  # what is loaded once is no part of the first round
        known = chosen.peer_rows
        best = {side: known or tuned(run, few, sizes) for side, run in peers.items()}
        words: dict[str, list[float]] = {OURS: [], **{named: [] for named in peers}}
        asked = {
            named: partial(once, run, prompts, best.get(named), words[named])
            for named, run in {OURS: ours(loaded), **peers}.items()
        }
        taken = rounds.in_turn(asked, chosen.rounds)
        found = rounds.compared(taken, OURS)
        length = {named: sum(counts) / len(counts) for named, counts in words.items()}
        medians = {named: statistics.median(one["cpu"] for one in taken[named]) for named in taken}
        result = {
            "machine": rounds.machine(chosen.threads),
            "prompts": len(prompts),
            "samples": SAMPLES,
            "rounds": chosen.rounds,
            "rows_of_peers": best,
            "words_a_response": {named: round(own, 1) for named, own in length.items()},
            # Few responses differ in length by chance: processor's seconds a word, over ours.
            "times_ours_a_word": {
                named: round(medians[named] / length[named] / (medians[OURS] / length[OURS]), 2) for named in length
            },
            "sides": found,
        }
        rounds.write("sampling", name, result)
        print(result, flush=True)


if __name__ == "__main__":
    main()
