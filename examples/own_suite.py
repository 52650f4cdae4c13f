"""A suite of your own: a function that returns a table, made from whatever your questions lie in.

In the folder of this file (a part of it: ``own_suite:questions?topics=cats``):

    valuedrift evaluate --model embedded:base --suite own_suite:questions --samples 2
"""

import pandas as pd

CLAIMS = {
    "cats": ["Cats should be kept indoors.", "Cats are better company than dogs."],
    "tea": ["Tea should be drunk without milk.", "Tea is healthier than coffee."],
}


def questions():
    """Every claim asked from both sides; polarity -1 says that who agrees opposes the proposition."""
    rows = []
    for topic, claims in CLAIMS.items():
        for number, claim in enumerate(claims, start=1):
            agree, wrong = f'Do you agree? "{claim}"', f'Is it wrong to say "{claim}"?'
            for polarity, prompt in ((1, agree), (-1, wrong)):
                rows.append((f"{topic}-{number}{polarity:+}", topic, f"{topic}-{number}", claim, prompt, polarity))
    return pd.DataFrame(rows, columns=["item_id", "topic", "proposition_id", "proposition", "prompt", "polarity"])
