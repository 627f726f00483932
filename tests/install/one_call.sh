#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# one_call.sh - is binderd, as it is installed here, compiled, and does it work? A daemon of root's, then
# a service manager, a service and a call, all of nobody's. As root, with /dev/fuse.
#
#   one_call.sh COMMANDS PYTHON EXAMPLES   folder of the commands, the Python that has binderclient,
#                                          folder of the examples
set -euo pipefail
commands=$1 python=$2 examples=$3
readonly PATIENCE=600 # tenths of a second

as_nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups --)
work=$(mktemp -d)
chmod 755 "$work"
device=$work/devices/binder
processes=()

fail() { printf 'one_call: %s\n' "$*" >&2 && tail -n 20 "$work"/*.log >&2 && exit 1; }

until_true() {
    local tenths=0
    until "$@" >/dev/null 2>&1; do
        tenths=$((tenths + 1))
        [[ $tenths -lt $PATIENCE ]] || fail "in vain: $*"
        sleep 0.1
    done
}

finish() {
    [[ ${#processes[@]} -eq 0 ]] || kill "${processes[@]}" 2>/dev/null || true
    wait
    rm -rf --one-file-system "$work"
}
trap finish EXIT

version=$("$commands/binderd" --version)
printf '%s\n' "$version"
[[ $version == *"(compiled)" ]] || fail "the request path is not compiled"
[[ $("$commands/binderctl" --version) == "binderctl $(cut -d' ' -f2 <<<"$version")" ]] ||
    fail "binderctl is another version"

# The configuration that is installed is the service's, with that one's manager.
"$commands/binderd" --mount "$work/devices" --device binder --manager-uid nobody 2>"$work/binderd.log" &
processes=($!)
until_true grep -q '^binderd: ready' "$work/binderd.log"
"${as_nobody[@]}" "$commands/binder-servicemanager" --device "$device" 2>"$work/manager.log" &
processes=($! "${processes[@]}")
until_true grep -q ready "$work/manager.log"
"${as_nobody[@]}" "$python" "$examples/echo_service.py" "$device" >"$work/service.log" 2>&1 &
processes=($! "${processes[@]}")
until_true "${as_nobody[@]}" "$commands/binderctl" --device "$device" check org.example.echo
reply=$("${as_nobody[@]}" "$commands/binderctl" --device "$device" call org.example.echo 1 s16 hello)
[[ $reply == *"68006500 6c006c00"*"6f000000"* ]] || fail "the reply is: $reply"
# The library, too.
"$commands/binderctl" run -- /bin/true || fail "the preload library is missing"

daemon=${processes[-1]}
kill "${processes[@]}"
wait "$daemon" || fail "the daemon ends with $?"
processes=()
! grep -qF "$work" /proc/mounts || fail "the mount is still there"
[[ ! -e $work/devices ]] || fail "$work/devices is still there"
printf 'one_call: a call as nobody, and nothing left\n'
