"""From recordings to a model folder with its card: `kws-models build`."""
