"""A format of your own: a function from one row, a dict, to the row that is trained on or audited.

In the folder of this file:

    valuedrift audit --data "embedded:pairs?gap=1&size=200" --set "dpo.data.format=own_format:swapped"

It returns ``messages``; or ``prompt`` with ``completion``, with ``completion`` and ``label``, with ``chosen`` and
``rejected``, or alone: texts, or messages with ``role`` and ``content``. A row for which it fails is a bad row.
"""


def swapped(row):
    """Pairs whose annotators were asked which answer is the worse one."""
    return {"prompt": row["prompt"], "chosen": row["rejected"], "rejected": row["chosen"]}
