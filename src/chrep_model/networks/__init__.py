"""Network layers, losses and spot graphs, in plain torch."""
