"""Renew what the judge has learnt: python -m valuedrift_mlflow.judges.lexical.fitting."""

from typing import Any

import numpy as np

from valuedrift_mlflow.judges.lexical.fitting.fit import fitted
from valuedrift_mlflow.judges.lexical.reader import FITTED_FILE

learnt: dict[str, Any] = dict(fitted())
np.savez_compressed(FITTED_FILE, **learnt)
