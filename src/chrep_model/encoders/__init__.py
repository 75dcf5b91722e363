"""Encoders: networks and filters that turn tiles into embeddings."""
