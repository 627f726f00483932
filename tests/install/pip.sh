#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# pip.sh - in a system of root.sh's: `pip install` into a bare virtual environment, with the Debian
# packages that README names and nothing else.
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

# README's line, as people paste it.
named=$(sed -n 's/^ *apt-get install \(.*python3-venv.*\)$/\1/p' /source/README.md | head -n 1)
[[ -n $named ]] || fail "README names no packages"
# shellcheck disable=SC2086 # a list
"${get[@]}" install $named >/dev/null

copy_tree /tree
python3 -m venv /venv
/venv/bin/pip install --quiet /tree
rm -rf /tree # what is installed stands alone
/source/tests/install/one_call.sh /venv/bin /venv/bin/python /source/client/examples

# Without a compiler it fails, and says what to do; on request it goes on without.
copy_tree /tree
export CC=no-such-compiler
! /venv/bin/pip install --no-deps --force-reinstall /tree >/log 2>&1 || fail "no compiler, no error"
grep -q 'binderd cannot be built: there is no C compiler.*apt-get install gcc' /log || fail "$(</log)"
[[ $(/venv/bin/binderd --version) == *"(compiled)" ]] || fail "what was there is damaged"
BINDERD_COMPILE=0 /venv/bin/pip install --quiet --no-deps --force-reinstall /tree
[[ $(/venv/bin/binderd --version) == *"(interpreted)" ]] || fail "not interpreted"
printf 'pip.sh: installed and used on %s\n' "$suite"
