"""Below ASGI: the only modules that know the insides of uvicorn and websockets."""
