#!/bin/sh
# The guarantees at full counts, one after the other on an otherwise idle machine; then docs/guarantees.md.
set -eu
python=$1
PROOF_LOG=$(mktemp)
export PROOF=full PROOF_LOG
cpu=$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)
printf '{"date": "%s", "commit": "%s", "machine": "%s, %s cores"}\n' "$(date -u +%F)" "$(git rev-parse --short HEAD)" \
    "$cpu" "$(nproc)" >"$PROOF_LOG"
"$python" -m pytest -q -o faulthandler_timeout=7200 \
    tests/api/test_security.py tests/api/test_tokens.py tests/api/test_schemathesis.py tests/api/test_streams.py \
    tests/commands/test_terminal.py tests/sinks tests/reliability tests/fuzz tests/host/test_systemd.py tests/sources/test_virtual_microphone.py \
    tests/integration/test_short_files.py tests/campaigns/test_encodings.py tests/board/test_packets.py tests/board/test_board.py tests/board/test_fuzz_firmware.py tests/browser tests/host/test_watch.py
mv "$PROOF_LOG" docs/proof.jsonl
"$python" -m tests.campaigns.guarantees --seal
