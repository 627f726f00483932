#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh - every way to install, tried: in clean Debian systems (root.sh), or the short form here.
#
#   run.sh all [SUITE ...]  the Debian package, pip and make, on bookworm and trixie: some 15 minutes
#   run.sh wheel PYTHON     `make wheel`'s wheel in a bare virtual environment on this machine; then
#                           'same', interpreted
#   run.sh same PYTHON      is a wheel made of the source distribution the one made of this tree?
#                           PYTHON has what builds it, as .venv has
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
    BINDERD_COMPILE=0 same "$1"
}

# Whether the wheel made of the tree is the one made of the source distribution, file by file.
same() {
    local apart source count=0
    apart=$(mktemp -d)
    "$1" -m build --no-isolation --sdist --outdir "$apart/sdist" . >"$apart/log" 2>&1 ||
        { cat "$apart/log" && exit 1; }
    mkdir "$apart/tree"
    tar -C "$apart/tree" --strip-components=1 -xf "$apart"/sdist/*.tar.gz
    for source in . "$apart/tree"; do
        rm -rf build/lib.* build/bdist.*
        "$1" -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$apart/wheel" "$source"
        "$1" -m zipfile -e "$apart"/wheel/*.whl "$apart/files-$((count += 1))"
        rm -r "$apart/wheel"
    done
    diff -r "$apart/files-1" "$apart/files-2" ||
        { printf 'run.sh: a wheel made of the sdist is another one\n' >&2 && exit 1; }
    find "$apart/files-1" -name '*.so' | wc -l |
        xargs printf 'run.sh: the wheel made of the sdist is the same, %s libraries included\n'
    rm -rf "$apart"
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
    wheel) wheel "${2:-.venv/bin/python}" ;;
    same) same "${2:-.venv/bin/python}" ;;
    all) shift && [[ $# -gt 0 ]] || set -- bookworm trixie && all "$@" ;;
    *) printf 'usage: run.sh all [SUITE ...] | wheel PYTHON | same PYTHON\n' >&2 && exit 2 ;;
esac
