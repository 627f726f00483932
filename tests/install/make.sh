#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# make.sh - in a system of root.sh's: `make install` with what README names, for Debian's own Python;
# then `make uninstall`.
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

named=$(sed -n 's/^ *apt-get install \(.*python3-trio.*\)$/\1/p' /source/README.md | head -n 1)
[[ -n $named ]] || fail "README names no packages"
# shellcheck disable=SC2086 # a list
"${get[@]}" install make man-db procps $named >/dev/null

copy_tree /tree
cd /tree
make wheel >/log 2>&1 || fail "$(</log)"
for prefix in /usr/local /opt/binderd; do
    before=$(files /)
    make install PREFIX=$prefix >/log 2>&1 || fail "$(</log)"
    printf '#!/bin/sh\nPYTHONPATH=%s exec /usr/bin/python3 "$@"\n' $prefix/lib/binderd/python >/tmp/python
    chmod 755 /tmp/python # what a program of one's own needs, unless Python searches PREFIX by itself
    /source/tests/install/one_call.sh $prefix/bin /tmp/python $prefix/share/doc/binderd/examples
    MANPATH=$prefix/share/man: systemd-analyze verify $prefix/lib/systemd/system/binderd.service || fail "the unit"
    make uninstall PREFIX=$prefix >/log 2>&1 || fail "$(</log)"
    diff <(printf '%s\n' "$before") <(files /) | grep '^> .*[^/]$' && fail "it leaves that"
done
printf 'make.sh: installed, used and uninstalled on %s\n' "$suite"
