"""Stand-ins for the GAP SDK's programs: the same command lines, the firmware of this machine behind the UART's port."""

from __future__ import annotations

from pathlib import Path


def sdk_programs(home: Path) -> tuple[Path, Path]:
    """Where gapy and gvsoc_launcher belong in an SDK at `home`; their folder is made."""
    folder = home / "install" / "workspace" / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "gapy", folder / "gvsoc_launcher"


def write_gapy(path: Path, waits_s: float = 0.0) -> None:
    """Writes gvsoc_config.json; before that it may take its time."""
    path.write_text(f"""#!/usr/bin/env python3
import json, os, sys, time
options = dict(a.lstrip("-").split("=") for a in sys.argv if "=" in a)
assert options["target"] == "gapuino_v3" and options["platform"] == "gvsoc" and os.path.exists(options["binary"])
assert {{"run", "--image", "--flash", "--exec-prepare"}} <= set(sys.argv) and "--exec" not in sys.argv
time.sleep({waits_s})
uart = {{"type": "dpi", "telnet": False, "stdout": True, "tx_file": "tx_uart.log", "baudrate": 115200}}
config = {{"target": {{"system_tree": {{"board": {{"uart": uart}}}}}}, "trace": options.get("trace")}}
json.dump(config, open(options["work-dir"] + "/gvsoc_config.json", "w"))
""")
    path.chmod(0o755)


def write_launcher(path: Path, firmware: list[str], pid: Path) -> None:
    """Traces a little, writes its process id to `pid`, then runs `firmware` behind the UART's port."""
    path.write_text(f"""#!/usr/bin/env python3
import json, os, socket, subprocess, sys
path = next(a.split("=")[1] for a in sys.argv if a.startswith("--config="))
assert os.environ["PULP_CONFIG_FILE"] == path
config = json.load(open(path))
uart = config["target"]["system_tree"]["board"]["uart"]
assert uart["telnet"] is True and uart["stdout"] is False and uart["tx_file"] == ""
print("raised_event")
for i, cycle in enumerate((90, 100, 107, 130)):
    kind = "Timer access (offset: 0x8, size: 0x4, is_write: 0)" if i else "Reached compare value (timer: 0)"
    print(f"{{cycle}}000: {{cycle}}: [\\x1b[34m/sys/board/chip/cluster/timer/trace   \\x1b[0m] {{kind}}", flush=True)
open({str(pid)!r}, "w").write(str(os.getpid()))
server = socket.create_server(("127.0.0.1", uart["telnet_port"]))
link, _ = server.accept()
subprocess.run({firmware!r}, stdin=link.fileno(), stdout=link.fileno())
""")
    path.chmod(0o755)
