#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# deb.sh - in a system of root.sh's: builds the package from nothing but its declared build
# dependencies, or installs, uses and purges the one that was built.
#
#   deb.sh build      into /results/SUITE
#   deb.sh install    from there
set -euo pipefail
# shellcheck source=/dev/null
results=/results/$(. /etc/os-release && printf '%s' "$VERSION_CODENAME")
get=(apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0)

fail() { printf 'deb: %s\n' "$*" >&2 && exit 1; }

build() {
    "${get[@]}" install build-essential lintian >/dev/null
    "${get[@]}" build-dep /source >/dev/null
    cp -r /source/. /tree 2>/dev/null || [[ -d /tree/debian ]]
    rm -rf "$results" && mkdir -p "$results"
    /source/debian/build.sh "$results"
}

files() { find / -xdev \( -path /var/lib/apt -o -path /var/cache -o -path /tmp -o -path /var/log \
    -o -path /var/lib/dpkg -o -path /root -o -path /source -o -path /results \) -prune -o -print | sort; }

try() {
    # What it depends on comes first, so that what is left by the package itself can be told.
    local before after depends
    depends=$(dpkg-deb --field "$results"/binderd_*.deb Depends | sed 's/([^)]*)//g; s/|[^,]*//g; s/,/ /g')
    # shellcheck disable=SC2086 # a list
    "${get[@]}" install $depends man-db bash-completion zsh fish systemd >/dev/null
    before=$(files)
    dpkg -i "$results"/binderd_*.deb >/dev/null
    /source/tests/install/one_call.sh /usr/bin /usr/bin/python3 /usr/share/doc/binderd/examples
    /source/tests/install/shells.sh
    systemd-analyze verify binderd.service || fail "the unit"
    [[ $(dpkg -L binderd | grep -c '/man/man[18]/.*gz$') == 3 ]] || fail "manual pages"
    dpkg -L binderd | grep -qx /usr/include/binderd.h || fail "binderd.h"
    dpkg --purge binderd >/dev/null
    after=$(files)
    diff <(printf '%s' "$before") <(printf '%s' "$after") || fail "purge leaves that"
    printf 'deb: installed, used and purged on %s\n' "${results##*/}"
}

"${get[@]}" update
case $1 in
    build) build ;;
    install) try ;;
    *) fail "build or install" ;;
esac
