"""Rows of data as json, csv and parquet hold them.

Only the format of the data knows which columns there are and of which types, and its reader checks what it takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]  # that is read
Record = dict[str, Any]  # that is made, or that a library wants as a dictionary
