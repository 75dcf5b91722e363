"""Evaluation of methods on held-out sections: splits, leak guard, metrics, benchmark and report."""
