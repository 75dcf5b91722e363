"""Qt parts that several widgets share, and their docks."""
