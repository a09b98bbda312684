"""The training loop, its recipes and what it runs on. Needs torch."""
