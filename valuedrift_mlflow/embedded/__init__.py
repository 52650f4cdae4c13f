"""The offline world: corpora with planted stances, the architecture of the base model, a reward function."""
