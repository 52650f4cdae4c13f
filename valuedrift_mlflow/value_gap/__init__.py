"""What data does to values: datasets audited for their value gap, and datasets made with the gap that is asked for."""
