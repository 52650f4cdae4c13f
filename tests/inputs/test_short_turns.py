"""What goes on beside a training leaves it its turns."""

import sys

import pytest

from valuedrift_mlflow.inputs.turns import short_turns


@pytest.mark.parametrize("own", [5e-3, 2e-5])
def test_turns_are_short_while_anything_is_done_and_what_they_were_afterwards(own: float) -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(own)
    try:
        with short_turns():
            with pytest.raises(ValueError, match="within"), short_turns():
                raise ValueError("within")
            within = sys.getswitchinterval()
        assert within == pytest.approx(min(own, 1e-4))
        assert sys.getswitchinterval() == pytest.approx(own)
    finally:
        sys.setswitchinterval(before)
