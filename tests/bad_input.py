"""Generated bad input: texts, values, rows, files and bytes as nobody should bring them, and what a door may do."""

import gzip
import json
import os
import re
from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from valuedrift_mlflow.inputs.errors import InputError

CASES = settings(
    max_examples=int(os.environ.get("VALUEDRIFT_FUZZ", "25")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
STEERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

ODD_TEXTS = st.sampled_from(
    [
        *(
            "",
            " ",
            "~nouser/x",
            "a\0b",
            "x" * 300,
            "/" + "y/" * 3000,
            "\x1b]0;title\x07",
            "\u202eabc",
            "NaN",
            "null",
            "1e400",
        ),
        *(
            "9" * 5000,
            "-1",
            "100000000000000000000",
            "os:system",
            "embedded:",
            "openai:/",
            "models:/",
            "runs:/",
            "hf:",
            "a@b@c",
        ),
        *(
            "vaes?topics=",
            "vaes?per_topic=99999999999999999999",
            "prism:",
            "prism:x?clusters=0",
            "[" * 3000,
            "mine:f",
            ".",
            "..",
        ),
        *(
            "embedded:sft?size=1e9",
            "embedded:pairs?gap=2",
            "%00",
            "\\",
            "a,b,,c",
            "lexical,lexical",
            "{",
            "?",
            "??a=b",
            "\ud800",
        ),
    ]
)
TEXTS = ODD_TEXTS | st.text(max_size=40)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=12
)
KEYS = st.sampled_from(
    ["base", "suite", "judge", "samples", "temperature", "stages", "seed", "margin", "stop", "max_new_tokens", "audit"]
)
STAGE_KEYS = st.sampled_from(
    [
        "name",
        "algorithm",
        "from",
        "data",
        "learning_rate",
        "max_steps",
        "batch_size",
        "beta",
        "lora",
        "reward",
        "trainer",
    ]
)
NAMED = st.sampled_from(["sft", "dpo", "ppo", "embedded:sft", "embedded:pairs", "embedded:base", "lexical", "vaes"])
STAGES = st.lists(st.dictionaries(STAGE_KEYS | TEXTS, NAMED | VALUES, max_size=6), max_size=3)
COLUMNS = st.sampled_from(
    [
        *(
            "item_id",
            "topic",
            "proposition",
            "prompt",
            "polarity",
            "axis",
            "direction",
            "response",
            "label",
            "step",
            "sample",
        ),
        *(
            "messages",
            "chosen",
            "rejected",
            "completion",
            "stance_a",
            "stance_b",
            "prompt_a",
            "prompt_b",
            "suite",
            "kind",
        ),
    ]
)
ROWS = st.lists(st.dictionaries(COLUMNS, NAMED | VALUES, max_size=8), max_size=4)


def good_or_told(door: Callable[[], object]) -> None:
    """Whether a door takes what it is given or says in lines what is wrong; any other error is the test's."""
    try:
        door()
    except InputError as error:
        for line in str(error).split("\n"):
            assert len(line) < 2_000
            assert not STEERS.search(line), ascii(line)


def written(rows: object, ending: str) -> bytes:
    """Rows as a file of this ending has them."""
    if ending == ".csv":
        lines = [",".join(map(str, row)) if isinstance(row, dict) else str(row) for row in rows]  # type: ignore[attr-defined]
        return "\n".join(lines).encode(errors="surrogatepass")
    texts = [json.dumps(row) for row in rows] if ending == ".jsonl" else [json.dumps(rows)]  # type: ignore[attr-defined]
    return "\n".join(texts).encode()


FILES = st.builds(
    lambda rows, ending, bom, packed, rubbish: (
        ending + (".gz" if packed else ""),
        (gzip.compress if packed else bytes)((b"\xef\xbb\xbf" if bom else b"") + written(rows, ending) + rubbish),
    ),
    ROWS,
    st.sampled_from([".csv", ".jsonl", ".json"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([b"", b"", b"\n", b"\x00\xff", b"\nitem_id,item_id\n1,2", b"\n{", "\u2028".encode(), b'"']),
)

JUNK = st.sampled_from([b"", b"", b"}", b"\x00\xff", b"[" * 3000, b'"', b"\xef\xbb\xbf", b"1" * 5000])
# Of what takes a tenth of a second each.
FEW = settings(CASES, max_examples=max(10, CASES.max_examples // 10))
