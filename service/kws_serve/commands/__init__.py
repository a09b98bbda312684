"""What `kws-serve` and `kws-detect` do once their arguments are read."""
