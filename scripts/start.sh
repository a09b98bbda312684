#!/bin/sh
# Start the service; without a source named and without a microphone, on the demo audio.
set -eu
bin=.venv/bin
case " $* ${KWS_SOURCE:+--source} ${KWS_CONFIG:+--source} " in
*" --source"* | *" --demo "* | *" --list-devices "* | *" --help "* | *" --version "*) ;;
*)
    if ! "$bin/kws-serve" --list-devices >/dev/null 2>&1; then
        echo "No microphone found: starting on the demo audio (synthetic). The page can use your browser's microphone."
        set -- --demo "$@"
    fi
    ;;
esac
case " $* " in
*" gap8 "*) case " $* " in *" serial:"*) ;; *) scripts/set_up.sh board "${PY:-python3}" ;; esac ;;
esac
exec "$bin/kws-serve" "$@"
