"""The mathematics of stances: arrays in, figures with intervals and tests out. No file, no MLflow, no model."""
