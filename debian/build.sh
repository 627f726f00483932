#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# build.sh - builds the Debian package from a copy of this tree, so that the tree stays as it is, and
# has lintian look at it.
#
#   build.sh DIR   where the results go
set -euo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin # a package is for Debian's own Python
cd "$(dirname "$0")/.."
results=$(realpath "$1")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/binderd"
tar --exclude=./build --exclude=./dist --exclude=./.venv --exclude=./.git --exclude='./.*_cache' \
    --exclude=./.hypothesis --exclude='*.egg-info' --exclude='*.so' --exclude=binderd-stress-worker --exclude=__pycache__ -cf - . |
    tar -C "$work/binderd" -xf -
cd "$work/binderd"
if ! dpkg-buildpackage -us -uc >"$work/log" 2>&1; then
    tail -n 50 "$work/log" >&2
    exit 1
fi
lintian --fail-on error,warning --tag-display-limit 0 "$work"/*.changes
mkdir -p "$results"
mv "$work"/binderd*_* "$results"
printf '%s\n' "$results"/*.deb
