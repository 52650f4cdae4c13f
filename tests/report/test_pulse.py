"""Signs of life without a terminal, by a clock that is turned by hand."""

import io

from rich.console import Console

from valuedrift_mlflow.inputs.pulse import EVERY, counted
from valuedrift_mlflow.report.display import Display


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def shown(clock: Clock, *, terminal: bool = False) -> tuple[Display, io.StringIO]:
    out = io.StringIO()
    return Display(Console(file=out, force_terminal=terminal, highlight=False, soft_wrap=True), clock), out


def test_a_line_at_least_every_thirty_seconds() -> None:
    clock = Clock()
    display, out = shown(clock)
    with display.live():
        display.start("rows", 1_000_000, "audit")
        for _ in range(35):
            clock.now += 10
            display.advance("rows", 2_000)
    lines = out.getvalue().splitlines()
    assert len(lines) == 11  # 350 seconds
    assert lines[0] == "rows (audit): 6,000 of 1,000,000, 30 s"
    assert lines[-1] == "rows (audit): 66,000 of 1,000,000, 6 min"


def test_one_step_of_minutes_is_no_silence() -> None:
    """The thread calls ``beat`` while nothing advances."""
    clock = Clock()
    display, out = shown(clock)
    display.start("responses", 10)
    clock.now = EVERY - 1
    display.beat()
    assert out.getvalue() == ""
    clock.now = EVERY
    display.beat()
    display.beat()
    assert out.getvalue() == "responses: 0 of 10, 30 s\n"


def test_other_lines_are_signs_of_life_too() -> None:
    clock = Clock()
    display, out = shown(clock)
    clock.now = 20
    display.line("step 1")
    clock.now = 40
    display.beat()
    assert out.getvalue() == "step 1\n"
    clock.now = 50
    display.beat()
    assert out.getvalue() == "step 1\nworking, 50 s\n"


def test_work_that_is_done_is_not_named() -> None:
    clock = Clock()
    display, out = shown(clock)
    display.start("rows", 2)
    display.advance("rows", 2)
    display.start("steps", 9, "sft")
    clock.now = 31
    display.beat()
    assert out.getvalue() == "steps (sft): 0 of 9, 31 s\n"


def test_a_terminal_has_its_bars_alone() -> None:
    clock = Clock()
    display, out = shown(clock, terminal=True)
    display.start("rows", 2)
    clock.now = 100
    display.beat()
    assert out.getvalue() == ""


def test_reading_says_how_far_it_is() -> None:
    clock, said = Clock(), list[str]()

    def rows() -> list[int]:
        return list(range(8))

    for _ in counted(rows(), said.append, "reading rows.jsonl", clock):
        clock.now += 12
    assert said == ["reading rows.jsonl: 4 rows so far (36 s)", "reading rows.jsonl: 7 rows so far (72 s)"]
