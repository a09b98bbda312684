"""Pure signal processing and state machines: no I/O, no clock, no threads, no ML runtime."""
