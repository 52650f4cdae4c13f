import pytest

from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.inputs.uris import split_options, topics_of, whole_number


def test_split_options() -> None:
    assert split_options("vaes") == ("vaes", {})
    assert split_options("own.csv?topics=a,b&per_topic=") == ("own.csv", {"topics": "a,b", "per_topic": ""})
    assert split_options("own.csv?note=a%20b%26c") == ("own.csv", {"note": "a b&c"})


def test_topics_each_once() -> None:
    assert topics_of({"topics": "b,a,b"}) == ("b", "a")
    assert topics_of({"per_topic": "3"}) is None


@pytest.mark.parametrize("text", ["-1", "1.5", "few", "", "²", "0"])
def test_what_is_no_whole_number_or_too_small(text: str) -> None:
    with pytest.raises(InputError, match=r"suite vaes per_topic: found .*, allowed: a whole number of at least 1"):
        whole_number("vaes", "per_topic", text)


def test_whole_numbers() -> None:
    assert (whole_number("vaes", "per_topic", "12"), whole_number("prism:", "seed", "0", least=0)) == (12, 0)
