"""kws-serve: live audio in, detections out."""

__version__ = "0.1.0"
