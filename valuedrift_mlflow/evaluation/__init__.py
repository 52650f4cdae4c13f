"""Stances of models: suite x model x judge to a measurement, with its metrics and tables.

Here are also the callback, the MLflow plugin, the scorer, and the check of judges against labelled answers.
"""
