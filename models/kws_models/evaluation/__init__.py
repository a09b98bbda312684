"""How good a model is: on clips, on streams, against another."""
