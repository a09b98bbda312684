"""Where audio comes from: microphones, files, standard input (WebSocket ingest lives in `api`)."""
