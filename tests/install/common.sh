# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# common.sh - what the scripts that root.sh runs have in common.
set -euo pipefail
# shellcheck source=/dev/null
suite=$(. /etc/os-release && printf '%s' "$VERSION_CODENAME")
get=(apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0)

fail() { printf '%s: %s\n' "${0##*/}" "$*" >&2 && exit 1; }

# copy_tree DIR - copies the source, without what was built in it.
copy_tree() {
    mkdir "$1"
    tar -C /source --exclude=./build --exclude=./dist --exclude=./.venv --exclude=./.git \
        --exclude='./.*_cache' --exclude='*.egg-info' --exclude='*.so' --exclude=binderd-stress-worker --exclude=__pycache__ -cf - . |
        tar -C "$1" -xf -
}

# files DIR - lists all files below, but for what packages and caches change in any case.
files() {
    find "$1" -xdev \( -path /var/lib/apt -o -path /var/lib/dpkg -o -path /var/cache -o -path /var/log \
        -o -path /run -o -path /tmp -o -path /root -o -path /source -o -path /results -o -path /tree \
        -o -name __pycache__ -path '*/python3/*' \) -prune -o -print | sort
}

"${get[@]}" update
