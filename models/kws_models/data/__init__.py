"""Recordings and features: found, read, cut, mixed and dealt out in batches."""
