#!/bin/sh
# Inside a container the service listens beyond loopback, so it never runs without a token: one is made and printed
# once where none is given by KWS_TOKEN or, for mounted secrets, by the file that KWS_TOKEN_FILE names.
set -eu
if [ -z "${KWS_TOKEN:-}" ] && [ -n "${KWS_TOKEN_FILE:-}" ]; then
    KWS_TOKEN=$(cat "$KWS_TOKEN_FILE")
fi
unset KWS_TOKEN_FILE
if [ -z "${KWS_TOKEN:-}" ]; then
    KWS_TOKEN=$(python3 -c 'import secrets; print(secrets.token_urlsafe(24))')
    echo "No KWS_TOKEN was given. The token of this run (printed once): $KWS_TOKEN"
fi
export KWS_TOKEN
exec kws-serve "$@"
