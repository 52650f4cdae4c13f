"""Training data: any known format to messages, or to prompt, chosen and rejected; of any size."""
