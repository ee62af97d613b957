"""What is remembered about containers, and what is true of them now."""
