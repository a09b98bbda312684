#!/bin/sh
# Tests on processors that this machine is not, by QEMU: emulated.sh PYTHON [haswell] [aarch64]
# haswell: x86 with AVX2 and nothing newer (no VNNI: there ONNX Runtime's integer kernels differ), with PYTHON's packages:
#   all of conformance; of models and integration what runs ONNX or TFLite files (HASWELL below).
# aarch64: Neoverse N1, Debian's Python and the wheels of PYTHON's own versions (480 MB on
#   disk in build/emulated): core and conformance tests. What starts the whole service needs more wheels: not run.
# An emulated processor is 5 to 30 times slower, so what else there is in tests/models and tests/integration is not run.
set -eu
python=$1
shift
[ $# -gt 0 ] || set -- haswell aarch64
here=$(pwd)
root=$here/build/emulated
PYTHONPATH=$here/service:$here/models:$here/firmware_bridge
export PYTHONPATH

missing=""
need() {
    command -v "$1" >/dev/null || missing="$missing $2"
}
need qemu-x86_64 qemu-user
need mmdebstrap mmdebstrap
if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "make emulated: needs Debian packages; run: sudo apt-get install --no-install-recommends$missing" >&2
        exit 2
    fi
    echo "Installing Debian packages:$missing"
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

# A virtual environment whose python is emulated, with all that it starts: environment NAME QEMU-COMMAND REAL-PYTHON SITE
environment() {
    mkdir -p "$root/$1/bin" "$root/$1/lib/$version"
    printf 'home = %s\ninclude-system-site-packages = false\n' "$(dirname "$3")" >"$root/$1/pyvenv.cfg"
    ln -sfn "$4" "$root/$1/lib/$version/site-packages"
    printf '#!/bin/sh\nexec %s -0 "$0" %s "$@"\n' "$2" "$3" >"$root/$1/bin/python"
    chmod +x "$root/$1/bin/python"
}

tests() {
    environment=$1
    shift
    echo "== $environment: $("$root/$environment/bin/python" -c 'import platform as p; print(p.machine(), p.python_version())')"
    KWS_CI="" "$root/$environment/bin/python" -m pytest -q -p no:cacheprovider "$@"
}

haswell() {
    version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    real=$("$python" -c 'import os, sys; print(os.path.realpath(sys._base_executable))')
    environment haswell "qemu-x86_64 -cpu Haswell-noTSX,-pcid,-x2apic,-tsc-deadline,-invpcid" "$real" \
        "$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    # shellcheck disable=SC2086
    tests haswell tests/conformance $HASWELL
}

aarch64() {
    version=python3.11 # Debian 12's
    system=$root/aarch64-system
    site=$root/aarch64-site
    if [ ! -e "$site/done" ]; then
        rm -rf "$system" "$site"
        mmdebstrap -q --variant=extract --architectures=arm64 --include=python3.11,libstdc++6 bookworm "$system"
        # what ONNX Runtime asks for: without it, it reads this machine's x86 description and crashes
        mkdir -p "$system/proc"
        for i in 0 1; do
            printf 'processor\t: %s\nFeatures\t: %s\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x3\n' "$i" \
                "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp ssbs"
            printf 'CPU part\t: 0xd0c\nCPU revision\t: 1\n\n'
        done >"$system/proc/cpuinfo"
        # shellcheck disable=SC2046
        "$python" -m pip install -qq --target "$site" --python-version 3.11 --implementation cp --only-binary=:all: \
            --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
            $("$python" -m pip freeze | grep -iE "^($WHEELS)==")
        touch "$site/done"
    fi
    environment aarch64 "qemu-aarch64 -cpu neoverse-n1 -L $system" "$system/usr/bin/python3.11" "$site"
    tests aarch64 tests/conformance tests/core
}

WHEELS="numpy|onnxruntime|onnx|ai-edge-litert|soxr|soundfile|scipy|flatbuffers|kaldi[-_]native[-_]fbank|pytest|pytest-asyncio|hypothesis"
HASWELL="tests/models/export/test_exporters.py tests/models/export/test_export_step.py tests/models/test_bring_your_own.py
 tests/models/evaluation/test_check.py tests/models/test_shipped_models.py tests/integration/test_three_ways.py"

for processor in "$@"; do
    case $processor in
    haswell | aarch64) $processor ;;
    *)
        echo "emulated.sh: found $processor, wanted haswell or aarch64" >&2
        exit 2
        ;;
    esac
done
