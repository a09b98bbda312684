"""Sources: microphones, audio files and stdin, each feeding one stream of the engine from a thread of its own."""

from kws_serve.sources.spec import SourceSpec, parse_source, parse_sources
from kws_serve.sources.supervisor import Sources, SourceState

__all__ = ["SourceSpec", "SourceState", "Sources", "parse_source", "parse_sources"]
