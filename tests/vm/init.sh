#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0
# init.sh - from the initial RAM file system to the agent, or to a system's own systemd.
#
# initramfs.py puts it into the archive as /init, beside /settings, /modules (in order) and busybox.

fail() {
    echo "binderd-vm: $*"
    echo o >/proc/sysrq-trigger
    sleep 60
}

/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
. /settings

for module in /modules/*; do
    case $module in
        *-binder_linux) insmod "$module" "devices=$devices" ;;
        *) insmod "$module" ;;
    esac || fail "cannot load the module $module"
done

# The host's files, and over them a layer in memory that takes all writes and is lost at the end.
# cache=loose: pages and names are asked for once, which is what makes Python bearable.
from_host=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o "ro,cache=loose,$from_host" root /host || fail "cannot mount the host's files"
mount -t tmpfs -o size=75% layer /layer
mkdir /layer/upper /layer/work /layer/root
mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work root /layer/root ||
    fail "cannot put a writable layer over the host's files"

cd /layer/root || fail "no root"
mkdir -p lib/modules
rm -rf "lib/modules/$release"
if [ -n "$results" ]; then
    mkdir -p ".$results"
    mount -t 9p -o "rw,$from_host" results ".$results" || fail "cannot mount $results"
fi

# A Debian system of its own: what the agent needs is put in, and its systemd does the rest.
if [ -n "$is_system" ]; then
    mkdir -p ".$tests" "lib/modules/$release" etc/systemd/system/sysinit.target.wants
    mount -t 9p -o "ro,cache=loose,$from_host" tests ".$tests" || fail "cannot mount $tests"
    mount -t 9p -o "ro,cache=loose,$from_host" modules "lib/modules/$release" ||
        fail "cannot mount the kernel's modules"
    cat >etc/systemd/system/binderd-vm.service <<EOF
[Unit]
Description=The agent of make vm
DefaultDependencies=no
After=systemd-remount-fs.service systemd-tmpfiles-setup-dev.service
[Service]
Environment=PYTHONPATH=$tests PYTHONDONTWRITEBYTECODE=1
ExecStart=/usr/bin/python3 -S -s -m vm.guest system
OOMScoreAdjust=-1000
EOF
    ln -s ../binderd-vm.service etc/systemd/system/sysinit.target.wants/
    exec /bin/switch_root /layer/root /lib/systemd/systemd
fi

ln -s "$module_folder" "lib/modules/$release"
mount -t proc proc proc
mount -t devtmpfs dev dev
mount -t sysfs sys sys
mount -t debugfs debug sys/kernel/debug
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 run run
mkdir -p run/lock dev/pts dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts dev/pts
mount -t tmpfs -o mode=1777 shm dev/shm
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
hostname binderd-vm
ip link set lo up

[ -x ".$python" ] || fail "the host's Python, $python, is not visible inside"
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PYTHONPATH="$tests" PYTHONDONTWRITEBYTECODE=1
ulimit -H -n 16384 # the kernel begins with 4096; some programs go through all numbers, so no more
exec /bin/switch_root /layer/root "$python" -S -s -m vm.guest
