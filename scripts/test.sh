#!/bin/sh
# All tests: those that bear company on three workers, then one by one those marked `alone`. Fails where either does, or
# where both together leave more than 5 % of the core unrun. With arguments: what they say, without that.
set -u
python=$1
shift
[ $# -eq 0 ] || exec "$python" -m pytest --ignore=tests/training "$@"
failed=0
set -- --ignore=tests/training --cov=kws_serve.core --cov-branch
"$python" -m pytest "$@" --cov-report= -m "not alone" --numprocesses=3 --dist=loadscope || failed=1
"$python" -m pytest "$@" --cov-append --cov-fail-under=95 -m alone || failed=1
exit $failed
