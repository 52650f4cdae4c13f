"""The mathematics, numpy and scipy alone: intervals, drift, value gap, style gap, agreement."""
