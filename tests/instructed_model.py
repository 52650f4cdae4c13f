"""What a model says that is told which stance to take, as synthesis tells it: shared by the tests of synthesis."""


def claim(text: str) -> str:
    """The statement that an instruction names, as a clause."""
    statement = text.partition('statement: "')[2].partition('." ')[0]
    return statement[0].lower() + statement[1:]


def agrees(text: str) -> str:
    """What a model says that supports everything."""
    return f"I wholly agree that {claim(text)}."
