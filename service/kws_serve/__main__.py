"""`python -m kws_serve` is `kws-serve`."""

from kws_serve.cli import serve

serve()
