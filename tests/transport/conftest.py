from tests.api.conftest import level_model, locked, server

__all__ = ["level_model", "locked", "server"]
