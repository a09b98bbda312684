"""One suite for all backends: what is true of one is true of every one."""
