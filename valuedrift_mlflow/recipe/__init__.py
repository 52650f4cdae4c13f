"""What an experiment is: its keys, their defaults and checks, and how a recipe is read."""
