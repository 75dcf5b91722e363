"""One file per method, all with the same two verbs: fit and predict."""
