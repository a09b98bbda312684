#!/bin/sh
# Inside a container the service listens beyond loopback, so it never runs without a token: KWS_TOKEN, the file that
# KWS_TOKEN_FILE names (a mounted secret; line ends of any system and a byte order mark are no part of it), or one that is
# made and kept in the state folder, where only this user can read it. It is never printed: logs are kept, and read by others.
set -eu
made="${KWS_DATA_DIR:-$HOME}/container-token"
clean() {
    LC_ALL=C sed '1s/^\xef\xbb\xbf//' "$1" | tr -d '\r\n'
}
if [ -z "${KWS_TOKEN:-}" ] && [ -n "${KWS_TOKEN_FILE:-}" ]; then
    [ -r "$KWS_TOKEN_FILE" ] || {
        echo "error: KWS_TOKEN_FILE: cannot read $KWS_TOKEN_FILE as user $(id -u), wanted a file with the token" >&2
        exit 2
    }
    KWS_TOKEN=$(clean "$KWS_TOKEN_FILE")
    [ -n "$KWS_TOKEN" ] || {
        echo "error: KWS_TOKEN_FILE: found $KWS_TOKEN_FILE empty, wanted a file with the token" >&2
        exit 2
    }
fi
unset KWS_TOKEN_FILE
if [ -z "${KWS_TOKEN:-}" ]; then
    [ -s "$made" ] || (
        umask 077
        python3 -c 'import secrets; print(secrets.token_urlsafe(24))' >"$made.new"
        mv "$made.new" "$made"
    )
    KWS_TOKEN=$(clean "$made")
    echo "No KWS_TOKEN was given: the token is in $made (docker exec CONTAINER cat $made)"
fi
export KWS_TOKEN
exec kws-serve "$@"
