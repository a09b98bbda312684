#!/bin/sh
# Set up .venv for running (run), testing (test) or training (train): set_up.sh WHAT PYTHON
# Where a Debian package is missing it is installed if that is allowed (root), else the one line to run is printed.
set -eu
what=$1
python=$2
venv=.venv
PATH="$PATH:/usr/sbin:/sbin" # ldconfig

fail() {
    echo "make: $*" >&2
    exit 1
}

# Debian packages: need NAME "how to see that it is there" PACKAGE...
missing=""
need() {
    probe=$1
    shift
    sh -c "$probe" >/dev/null 2>&1 || missing="$missing $*"
}

get_missing() {
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "Installing Debian packages:$missing"
        apt-get update -qq
        # shellcheck disable=SC2086
        DEBIAN_FRONTEND=noninteractive apt-get -o Dpkg::Use-Pty=0 install -y -qq --no-install-recommends $missing >/dev/null
        missing=""
    elif [ "$1" = required ]; then
        fail "needs Debian packages; run: sudo apt-get install --no-install-recommends$missing"
    else
        echo "For $1, run: sudo apt-get install --no-install-recommends$missing"
        missing=""
    fi
}

command -v "$python" >/dev/null || fail "found no $python; wanted Python >= 3.11 (make PY=/path/to/python)"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "found $("$python" --version), wanted Python >= 3.11 (make PY=/path/to/python)"

if [ "$what" != board ] && [ ! -x "$venv/bin/pip" ]; then
    need "$python -c 'import ensurepip'" python3-venv
    get_missing required
    "$python" -m venv "$venv"
fi

# The package with the extras that it runs with, in the versions of the lock file, each file checked by its digest.
# Not on 32-bit ARM: wheels for it are built by others than the packages' authors, and have other digests.
locked() {
    case $(uname -m) in
    armv6l | armv7l) "$venv/bin/pip" install -q -e '.[mic,tflite,gap8]' ;;
    *)
        "$venv/bin/pip" install -q --require-hashes -r requirements.lock
        "$venv/bin/pip" install -q --no-deps --no-build-isolation -e .
        ;;
    esac
}

case $what in
run)
    need "ldconfig -p | grep -q libportaudio.so.2" libportaudio2
    get_missing "server-side microphones"
    echo "Setting up $venv: about 70 MB to download, 260 MB on disk"
    locked
    ;;
test)
    echo "Setting up $venv and the test tools: about 550 MB to download, 2.8 GB on disk, Chromium and a RISC-V compiler included"
    need "ldconfig -p | grep -q libportaudio.so.2" libportaudio2
    need "command -v chromium || command -v google-chrome" chromium
    need "ldconfig -p | grep -q libatomic.so.1" libatomic1 # what playwright's driver links
    need "command -v pulseaudio" pulseaudio pulseaudio-utils libasound2-plugins
    need "command -v riscv64-unknown-elf-gcc" gcc-riscv64-unknown-elf
    need "command -v qemu-system-riscv32" qemu-system-misc
    need "command -v cc && echo '#include <stdio.h>' | cc -E -" gcc libc6-dev
    need "ls /usr/lib/*/faketime/libfaketimeMT.so.1" libfaketime
    need "command -v openssl" openssl
    need "command -v nginx" nginx-light
    need "command -v flite" flite
    need "command -v ffmpeg" ffmpeg
    need "command -v sox && sox --help | grep -q ' mp3 '" sox libsox-fmt-all
    need "command -v espeak-ng" espeak-ng
    get_missing "the browser and microphone tests, which are skipped without it"
    locked
    "$venv/bin/pip" install -q -e '.[dev]'
    ;;
board)
    # for --backend gap8 without a board: builds the firmware and emulates it
    need "command -v riscv64-unknown-elf-gcc" gcc-riscv64-unknown-elf
    need "command -v qemu-system-riscv32" qemu-system-misc
    get_missing "the emulator of the gap8 backend"
    ;;
train)
    # 2.13's plain build for Linux carries CUDA (several GB): the CPU build is asked for first
    "$venv/bin/python" -c 'import torch' 2>/dev/null ||
        "$venv/bin/pip" install -q 'torch==2.13.0' --extra-index-url https://download.pytorch.org/whl/cpu
    "$venv/bin/pip" install -q -e '.[train,dev]'
    ;;
*)
    fail "set_up.sh: found $what, wanted run, test, board or train"
    ;;
esac
