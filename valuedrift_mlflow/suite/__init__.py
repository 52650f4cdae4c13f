"""Suites: topics, propositions and the prompts that probe them. Loaded, validated, versioned and hashed here.

``load`` takes any suite URI: the built-in ``vaes``, a file, ``prism:PATH``.
"""

from valuedrift_mlflow.suite.sources import load
from valuedrift_mlflow.suite.suite import COLUMNS, PHRASINGS, Item, Suite
from valuedrift_mlflow.suite.tables import BUILT_IN, FRAME, TABLE, VAES_VERSION, from_frame

__all__ = ["BUILT_IN", "COLUMNS", "FRAME", "PHRASINGS", "TABLE", "VAES_VERSION", "Item", "Suite", "from_frame", "load"]
