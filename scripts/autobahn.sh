#!/bin/sh
# Autobahn's fuzzing client against an echo under our server settings; its runtime is Python 2, so it is not set up here.
set -eu
python=$1
command -v wstest >/dev/null || {
    echo "make autobahn: found no wstest, wanted Autobahn's (pip2 install autobahntestsuite, or its container)" >&2
    exit 2
}
folder=$(mktemp -d)
"$python" -m tests.support.echo_server 9001 &
echo_server=$!
trap 'kill $echo_server; rm -rf "$folder"' EXIT
sleep 1
cat >"$folder/spec.json" <<EOF
{"outdir": "$folder/reports", "servers": [{"url": "ws://127.0.0.1:9001"}],
 "cases": ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"], "exclude-cases": [], "exclude-agent-cases": {}}
EOF
wstest -m fuzzingclient -s "$folder/spec.json"
"$python" - "$folder/reports/index.json" <<'EOF'
import json, sys

(cases,) = json.load(open(sys.argv[1])).values()
bad = [name for name, found in cases.items() if found["behavior"] not in ("OK", "NON-STRICT", "INFORMATIONAL")]
print(f"{len(cases)} cases, {len(bad)} failed", *bad)
sys.exit(bool(bad))
EOF
