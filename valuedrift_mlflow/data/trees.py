"""OpenAssistant's trees of messages, whole in a row or a message a row, in which people ranked what answers a message.

An answer's prompt is the way from the root to it. Pairs are the best and the worst ranked answer to one message; to
learn from, the best answer to each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from valuedrift_mlflow.data.compared import number
from valuedrift_mlflow.data.messages import BadRow, Message, Outcome, Raw, assistant, user
from valuedrift_mlflow.inputs.rows import Record, Row

_USERS = ("prompter", "user", "human")


@dataclass
class _Node:
    raw: Raw
    text: str
    by_user: bool
    rank: float | None
    replies: list[_Node] = field(default_factory=list)


def _node(row: Row, raw: Raw) -> _Node:
    text, role = row.get("text"), row.get("role")
    if not isinstance(text, str) or role not in (*_USERS, "assistant"):
        raise BadRow(f"a message with text {text!r} and role {role!r}, expected a text, prompter or assistant")
    rank = row.get("rank")
    return _Node(raw, text, role in _USERS, None if rank in (None, "") else number(rank, "rank"))


def _grown(row: Row, raw: Raw) -> _Node:
    node = _node(row, raw)
    node.replies = [_grown(reply, raw) for reply in row.get("replies") or ()]
    return node


Made = Callable[[list[Message], Sequence[_Node]], list[Record]]


def _pairs(prompt: list[Message], answers: Sequence[_Node]) -> list[Record]:
    ranked = sorted((node for node in answers if node.rank is not None), key=lambda node: node.rank or 0)
    if len(ranked) < 2 or ranked[0].rank == ranked[-1].rank:
        return []
    chosen, rejected = ranked[0], ranked[-1]
    margin = (rejected.rank or 0) - (chosen.rank or 0)
    sides = {"chosen": [assistant(chosen.text)], "rejected": [assistant(rejected.text)]}
    return [{"prompt": prompt, **sides, "margin": margin}]


def _best(prompt: list[Message], answers: Sequence[_Node]) -> list[Record]:
    # An answer without a rank comes last: it is taken only where none has one.
    best = min(answers, key=lambda node: float("inf") if node.rank is None else node.rank, default=None)
    return [{"prompt": prompt, "completion": [assistant(best.text)]}] if best else []


def _read(root: _Node, made: Made) -> list[Record]:
    """What the answers to every message of a user give, from the root down."""
    rows: list[Record] = []
    waiting: list[tuple[_Node, list[Message]]] = [(root, [])]
    while waiting:
        node, before = waiting.pop()
        prompt = [*before, user(node.text) if node.by_user else assistant(node.text)]
        if node.by_user:
            rows += made(prompt, [reply for reply in node.replies if not reply.by_user])
        # What is put on last is taken off first: reversed, answers come in their own order.
        waiting += [(reply, prompt) for reply in reversed(node.replies)]
    return rows


def from_trees(kind: str) -> Callable[[Iterable[Raw]], Iterator[Outcome]]:
    """Reads rows that each hold a whole tree in ``tree``."""
    made = _pairs if kind == "pairs" else _best

    def outcomes(raws: Iterable[Raw]) -> Iterator[Outcome]:
        for raw in raws:
            try:
                tree = (raw.row or {}).get("tree")
                if not isinstance(tree, Mapping):
                    raise BadRow(f"prompt is {tree!r}, expected a message with replies")
                rows = _read(_grown(tree, raw), made)
            # The last two: a part of the row is of another type than it should be.
            except (BadRow, TypeError, AttributeError) as error:
                yield Outcome(raw, bad=str(error))
            else:
                yield Outcome(raw, rows, dropped=not rows)

    return outcomes


def from_messages(kind: str) -> Callable[[Iterable[Raw]], Iterator[Outcome]]:
    """Reads rows that each hold one message. A tree's rows follow each other, each after what it answers.

    One tree is in memory at a time. Rows count as dropped where their tree gives nothing to learn from.
    """
    made = _pairs if kind == "pairs" else _best

    def outcomes(raws: Iterable[Raw]) -> Iterator[Outcome]:
        nodes: dict[object, _Node] = {}
        root: _Node | None = None
        for raw in raws:
            row = raw.row or {}
            try:
                node = _node(row, raw)
                if row.get("parent_id") in (None, ""):
                    yield from _finished(root, nodes, made)
                    root, nodes = node, {}
                elif row["parent_id"] in nodes:
                    nodes[row["parent_id"]].replies.append(node)
                else:
                    raise BadRow("what it answers (parent_id) does not stand before it in the same tree")
                nodes[row.get("message_id")] = node
            except BadRow as error:
                yield Outcome(raw, bad=str(error))
        yield from _finished(root, nodes, made)

    return outcomes


def _finished(root: _Node | None, nodes: Mapping[object, _Node], made: Made) -> Iterator[Outcome]:
    if root is not None:
        rows = _read(root, made)
        yield Outcome(root.raw, rows, dropped=0 if rows else len(nodes))


def ranked(row: Row) -> bool:
    """Whether a message has a rank above others: only then can there be pairs."""
    return row.get("rank") not in (None, "", 0, "0", "0.0", 0.0)


def in_tree(row: Row) -> bool:
    """Whether a cell holds a tree."""
    tree = row.get("tree")
    return isinstance(tree, Mapping) and "replies" in tree
