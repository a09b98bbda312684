"""The machine the service runs on: systemd, ports, log lines, other servers."""
