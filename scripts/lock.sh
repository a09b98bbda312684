#!/bin/sh
# requirements.lock: one version, and the digests of its files, of all that `make run` and the container install, for every
# Python and platform of pyproject.toml but 32-bit ARM. lock.sh PYTHON [--upgrade]
# With what builds the package: `editables` is what hatchling asks for besides, where it is to be editable.
# Versions that still fit are kept, without --upgrade. No index is named in it: pip takes its own, and the digests hold.
set -eu
python=$1
shift
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
"$python" -m venv "$tools"
"$tools/bin/pip" install -q 'uv>=0.5'
"$python" -c 'import tomllib; print("editables", *tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' |
    "$tools/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
        --custom-compile-command "make lock" --extra mic --extra tflite --extra gap8 --output-file requirements.lock "$@" \
        pyproject.toml -
