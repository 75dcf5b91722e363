"""How anything is fitted: spots as arrays, batches, epochs."""
