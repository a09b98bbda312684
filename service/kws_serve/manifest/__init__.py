"""A model's folder: `model.json` read, checked and typed, and where folders are found."""
