"""Qt widgets, tables and docks that the rooms of the plugin share."""
