#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# deb.sh - in a system of root.sh's: builds the package from nothing but its declared build
# dependencies, or installs, uses and purges the one that was built.
#
#   deb.sh build      into /results/SUITE
#   deb.sh install    from there
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
results=/results/$suite

build() {
    "${get[@]}" install build-essential lintian >/dev/null
    "${get[@]}" build-dep /source >/dev/null
    rm -rf "$results" && mkdir -p "$results"
    /source/debian/build.sh "$results"
}

try() {
    local before depends page packages=("$results"/binderd_*.deb)
    # What it depends on comes first, so that what is left by the package itself can be told.
    depends=$(dpkg-deb --field "${packages[0]}" Depends | sed 's/([^)]*)//g; s/|[^,]*//g; s/,/ /g')
    # shellcheck disable=SC2086 # a list
    "${get[@]}" install $depends man-db bash-completion zsh fish systemd >/dev/null
    before=$(files /)
    dpkg -i "${packages[0]}" >/dev/null
    /source/tests/install/one_call.sh /usr/bin /usr/bin/python3 /usr/share/doc/binderd/examples
    /source/tests/install/shells.sh
    systemd-analyze verify binderd.service binder-servicemanager@binder.service || fail "the unit"
    for page in binderd.8 binderctl.1 binder-servicemanager.1 binderclient-aidl.1 mount.binder.8; do
        [[ $(man --where "${page##*.}" "${page%.*}") == */"$page.gz" ]] || fail "$page"
    done
    binderd --check-config || fail "the configuration"
    for header in binderd binderd_lane; do
        [[ -f /usr/include/$header.h ]] || fail "$header.h"
    done
    dpkg --purge binderd >/dev/null
    diff <(printf '%s\n' "$before") <(files /) || fail "purge leaves that"
    printf 'deb.sh: installed, used and purged on %s\n' "$suite"
}

case $1 in
    build) build ;;
    install) try ;;
    *) fail "build or install" ;;
esac
