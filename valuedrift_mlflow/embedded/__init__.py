"""The embedded world: a small base model, and corpora whose stances are planted, so that the truth is known."""
