"""The architectures: layers, shapes and counts."""
