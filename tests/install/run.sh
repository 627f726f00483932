#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh - every way to install, tried: in clean Debian systems (root.sh), or the short form here.
#
#   run.sh all [SUITE ...]  the Debian package, pip and make, on bookworm and trixie: some 15 minutes
#   run.sh wheel PYTHON     `make wheel`'s wheel in a bare virtual environment on this machine; and that the
#                           one that the source distribution gives is the same. PYTHON has pip and build.
set -euo pipefail
cd "$(dirname "$0")/../.."

wheel() {
    local directory wheels=(build/wheel/*.whl)
    directory=$(mktemp -d)
    chmod 755 "$directory"
    # shellcheck disable=SC2064 # now
    trap "rm -rf '$directory'" EXIT
    "$1" -m venv "$directory/venv"
    "$directory/venv/bin/pip" install --quiet "${wheels[0]}"
    cp -r client/examples "$directory"
    tests/install/one_call.sh "$directory/venv/bin" "$directory/venv/bin/python" "$directory/examples"

    "$1" -m build --sdist --outdir "$directory/sdist" . >"$directory/log" 2>&1 ||
        { cat "$directory/log" && exit 1; }
    "$1" -m pip wheel --quiet --no-deps --wheel-dir "$directory/again" "$directory"/sdist/*.tar.gz
    "$1" -m zipfile -e "${wheels[0]}" "$directory/a"
    "$1" -m zipfile -e "$directory"/again/*.whl "$directory/b"
    diff -r "$directory/a" "$directory/b" ||
        { printf 'run.sh: a wheel made of the sdist is another one\n' >&2 && exit 1; }
    printf 'run.sh: the wheel made of the sdist is the same, file by file\n'
}

all() {
    local suite
    for suite in "$@"; do
        tests/install/root.sh "$suite" /source/tests/install/deb.sh build
        tests/install/root.sh "$suite" /source/tests/install/deb.sh install
        tests/install/root.sh "$suite" /source/tests/install/pip.sh
        tests/install/root.sh "$suite" /source/tests/install/make.sh
    done
}

case ${1-} in
    wheel) wheel "${2:-/usr/bin/python3}" ;;
    all) shift && [[ $# -gt 0 ]] || set -- bookworm trixie && all "$@" ;;
    *) printf 'usage: run.sh all [SUITE ...] | wheel PYTHON\n' >&2 && exit 2 ;;
esac
