"""Audio files, for the service and the tools alike: their kind, what their headers should say, and their samples."""

from kws_serve.audio.decoder import Decoder

__all__ = ["Decoder"]
