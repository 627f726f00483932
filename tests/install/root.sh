#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# root.sh - runs a command in a Debian of its own that is gone afterwards. As root.
#
#   root.sh SUITE COMMAND [ARGUMENT ...]   bookworm or trixie; this tree is /source there, read-only, and
#                                          build/install is /results
#
# The first time it makes the system (debian.sh), and keeps it in build/roots. Namespaces keep mounts
# and processes apart; the network is shared.
set -euo pipefail
cd "$(dirname "$0")/../.."
suite=$1
shift
archive=build/roots/$suite.tar

if [[ ! -f $archive ]]; then
    mkdir -p build/roots
    printf 'install: making a Debian %s (a minute)\n' "$suite" >&2
    tests/install/debian.sh "$suite" "${archive%.tar}.new.tar" ca-certificates
    mv "${archive%.tar}.new.tar" "$archive"
fi
mkdir -p build/install
root=$(mktemp -d "${TMPDIR:-/tmp}/binderd-root-XXXXXX")
trap 'rm -rf --one-file-system "$root"' EXIT
tar -xf "$archive" -C "$root"
for file in /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
    [[ ! -f $file ]] || install -D -m 644 "$file" "$root$file" # how this machine reaches the network
done
kept=()
while IFS= read -r variable; do kept+=("$variable"); done < <(
    env | grep -E '^(PIP_(CERT|INDEX_URL|EXTRA_INDEX_URL|DEFAULT_TIMEOUT)|(https?|no)_proxy|SSL_CERT_FILE)=' ||
        true
)

# shellcheck disable=SC2016 # expanded inside
unshare --mount --pid --fork --kill-child --propagation private -- bash -euc '
root=$1 source=$2
shift 2
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 dev "$root/dev"
for name in null zero full random urandom tty fuse; do
    touch "$root/dev/$name" && mount --bind "/dev/$name" "$root/dev/$name"
done
ln -s /proc/self/fd "$root/dev/fd"
mkdir -p "$root/dev/pts" "$root/dev/shm" "$root/source" "$root/results" "$root/old"
mount -t tmpfs shm "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 pts "$root/dev/pts" && ln -s pts/ptmx "$root/dev/ptmx"
mount --bind "$source" "$root/source" && mount -o remount,bind,ro "$root/source"
mount --bind "$source/build/install" "$root/results"
cd "$root"
pivot_root . old # not chroot, in which no user namespace can be made
umount -l /old && rmdir /old
cd /
exec "$@"
' root.sh "$root" "$PWD" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
    DEBIAN_FRONTEND=noninteractive "${kept[@]}" "$@"
