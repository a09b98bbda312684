"""Where events go: the bounded in-memory history and its subscribers."""
