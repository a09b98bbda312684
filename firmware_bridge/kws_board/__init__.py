"""Host side of the GAP8 serial bridge. Reserved: the board is a feature of its own and not built yet."""
