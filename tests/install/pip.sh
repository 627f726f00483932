#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# pip.sh - in a system of root.sh's: `pip install` into a bare virtual environment, with the Debian
# packages that README names and nothing else.
set -euo pipefail
get=(apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0)

fail() { printf 'pip: %s\n' "$*" >&2 && exit 1; }

# The line of README's that begins with "apt-get install", as people paste it.
named=$(sed -n 's/^ *apt-get install \(.*python3-venv.*\)$/\1/p' /source/README.md | head -n 1)
[[ -n $named ]] || fail "README names no packages"
"${get[@]}" update
# shellcheck disable=SC2086 # a list
"${get[@]}" install $named >/dev/null

mkdir /tree && tar -C /source --exclude=./build --exclude=./.venv --exclude=./.git --exclude='*.so' \
    --exclude=__pycache__ -cf - . | tar -C /tree -xf -
python3 -m venv /venv
/venv/bin/pip install --quiet /tree
rm -rf /tree # what is installed stands alone
/source/tests/install/one_call.sh /venv/bin /venv/bin/python /source/client/examples

# Without a compiler it fails, and says what to do; on request it goes on without.
mkdir /tree && tar -C /source --exclude=./build --exclude=./.venv --exclude=./.git --exclude='*.so' \
    --exclude=__pycache__ -cf - . | tar -C /tree -xf -
python3 -m venv /other
! CC=no-such-compiler /other/bin/pip install --no-deps /tree >/log 2>&1 || fail "no compiler, no error"
grep -q 'binderd cannot be built: there is no C compiler.*apt-get install gcc' /log || fail "$(cat /log)"
CC=no-such-compiler BINDERD_COMPILE=0 /other/bin/pip install --quiet --no-deps /tree
/other/bin/pip install --quiet construct trio pyfuse3
[[ $(/other/bin/binderd --version) == *"(interpreted)" ]] || fail "not interpreted"
# shellcheck source=/dev/null
printf 'pip: installed and used on %s\n' "$(. /etc/os-release && printf '%s' "$VERSION_CODENAME")"
