#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# setup.sh - the parts of the Makefile that are too long for it.
#
#   setup.sh packages     installs the Debian packages that are missing
#   setup.sh packages vm  the same for those that only 'make vm' and 'make test-vm' need;
#                         deb: 'make deb', install: 'make test-install', budget: 'make budget'
#   setup.sh venv DIR     makes the virtual environment and installs the project into it
#   setup.sh broker FILE  puts dbus-broker there, for the benchmark, without installing its package
#   setup.sh progress WHAT COMMAND...  runs a silent command, and says every 10 s that it still runs
#   setup.sh fuse WHO     fails, with one line that starts with WHO, where FUSE cannot be mounted
set -euo pipefail

packages=(
    python3 python3-venv make
    python3-dev                     # <Python.h>, for the compiled request path
    gcc libc6-dev linux-libc-dev    # C clients; <linux/android/binder.h>, <linux/fuse.h>
    libfuse3-dev pkgconf            # pyfuse3 is compiled when it is installed
    dbus libsystemd-dev             # what the benchmark compares with
    mount util-linux                # mount, setpriv, unshare
    fuse3                           # fusermount3, which mounts for ordinary users
    bubblewrap runc                 # containers that the tests make
    systemd                         # systemd-analyze verifies our units
)
# Android's own compiler, with which ours is compared: that of Android 10, as Debian 12 has it.
if grep -qs '^VERSION_CODENAME=bookworm$' /etc/os-release; then packages+=(aidl); fi

vm_packages=(
    qemu-system-x86 busybox-static kmod  # the machine, the first program in it, depmod
)

deb_packages=(
    build-essential debhelper dh-python pybuild-plugin-pyproject pkgconf lintian
    mypy python3-construct python3-pyfuse3 python3-setuptools python3-trio python3-wheel python3-dev
)

install_packages_for_tests=(
    mmdebstrap  # makes clean systems
)

budget_packages=(
    valgrind gcc libc6-dev  # what counts instructions, and its header
)

say() { printf '%s\n' "$*" >&2; }

with_progress() {
    local what=$1 status=0 start=$SECONDS ticker
    shift
    say "setup: $what"
    # A pipe without a writer: reading from it is a sleep that ends with this very process.
    (
        exec {never}<> <(:)
        while kill -0 $$ 2>/dev/null; do
            read -rt "${PROGRESS_SECONDS:-10}" -u "$never" || true
            say "setup: $what: $((SECONDS - start)) s so far"
        done
    ) &
    ticker=$!
    "$@" || status=$?
    kill "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    return "$status"
}

install_packages() {
    local installed package missing=()
    if ! command -v dpkg-query >/dev/null; then
        say "setup: not a Debian system: please see to the counterparts of: ${packages[*]}"
        return 0
    fi
    installed=$(dpkg-query --show --showformat='${db:Status-Status} ${Package}\n' "${packages[@]}" \
        2>/dev/null | sed -n 's/^installed //p' | tr '\n' ' ') || true
    for package in "${packages[@]}"; do
        [[ " $installed" == *" $package "* ]] || missing+=("$package")
    done
    [[ ${#missing[@]} -gt 0 ]] || return 0
    if [[ $(id -u) != 0 ]]; then
        say "setup: packages are missing; run: sudo apt-get install ${missing[*]}"
        return 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    local install=(apt-get install -qq --no-install-recommends "${missing[@]}")
    # The package lists may be absent (fresh images) or name versions that are gone from the mirror.
    local what="installing ${missing[*]}"
    if ! compgen -G '/var/lib/apt/lists/*Packages*' >/dev/null ||
        ! with_progress "$what" "${install[@]}"; then
        with_progress "fetching the list of Debian's packages" apt-get update -qq
        with_progress "$what" "${install[@]}"
    fi
}

# Debian's own interpreter first: it is built with the optimisations that others often lack.
find_python() {
    local python
    for python in /usr/bin/python3 python3; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$python"
            return 0
        fi
    done
    say "setup: needs Python 3.11 or newer as /usr/bin/python3 or python3"
    return 1
}

make_venv() {
    local directory=$1 python
    if ! "$directory/bin/python" -c '' 2>/dev/null; then
        python=$(find_python)
        say "setup: making $directory with $python"
        "$python" -m venv --clear "$directory"
    fi
    with_progress "installing the project and its tools into $directory (a minute or two)" \
        "$directory/bin/python" -m pip install --quiet --disable-pip-version-check \
        --editable '.[test]'
    say "setup: it is editable, so interpreted; what make starts is compiled first (make compile)"
}

check_fuse() {
    local container_options="--device /dev/fuse --cap-add SYS_ADMIN --cap-add SYS_PTRACE"
    if [[ ! -c /dev/fuse ]]; then
        say "$1: needs /dev/fuse: run 'modprobe fuse'; a container needs $container_options"
    elif ! (: <>/dev/fuse) 2>/dev/null; then
        say "$1: may not open /dev/fuse: a container needs $container_options"
    elif [[ $(id -u) != 0 ]] && ! command -v fusermount3 >/dev/null; then
        say "$1: without root it needs fusermount3: run 'sudo apt-get install fuse3', or this with sudo"
    else
        return 0
    fi
    return 1
}

# Its package makes itself the system's bus. The program alone needs nothing that dbus does not need.
fetch_broker() {
    local target=$1 folder status=0
    command -v apt-get dpkg-deb >/dev/null || return 0
    folder=$(mktemp --directory)
    (
        cd "$folder"
        compgen -G '/var/lib/apt/lists/*Packages*' >/dev/null || apt-get update -qq
        apt-get download -qq -o APT::Sandbox::User=root dbus-broker
        dpkg-deb --extract dbus-broker_*.deb .
    ) || status=$?
    if [[ $status == 0 ]]; then
        mkdir -p "$(dirname "$target")"
        install "$folder/usr/bin/dbus-broker" "$target"
    else
        say "setup: dbus-broker cannot be fetched; the benchmark leaves it out"
    fi
    rm -rf "$folder"
}

case "${1-}" in
    packages)
        case ${2-} in
            vm) packages=("${vm_packages[@]}") ;;
            deb) packages=("${deb_packages[@]}") ;;
            install) packages=("${install_packages_for_tests[@]}") ;;
            budget) packages=("${budget_packages[@]}") ;;
        esac
        install_packages
        ;;
    venv) make_venv "$2" ;;
    broker) fetch_broker "$2" ;;
    fuse) check_fuse "$2" ;;
    progress) with_progress "${@:2}" ;;
    *) say "usage: setup.sh packages [vm|deb|install|budget] | venv DIR | fuse WHO | broker FILE | progress WHAT COMMAND..." && exit 2 ;;
esac
