"""The engine: many streams through all models, tick by tick."""
