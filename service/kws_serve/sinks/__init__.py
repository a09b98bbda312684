"""Where events go: the durable event log and those who follow it."""
