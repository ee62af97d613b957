"""One module per command; only the one that is asked for is loaded."""
