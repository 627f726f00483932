#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# install.sh - puts what was built where the system looks for it; the Makefile and debian/rules call it.
#
#   install.sh all WHEEL   everything, for the Python that the wheel was built for
#   install.sh files       everything but Python packages and commands
#   install.sh uninstall   removes what 'all' has installed, and nothing else
#
# From the environment:
#   PREFIX   where it will be used, an absolute path (/usr/local)
#   DESTDIR  put before all paths, for packagers (nothing)
#   PYTHON   runs the commands (/usr/bin/python3)
#   MANUAL   a folder that docs/manual has filled
#   UNITS    where systemd finds units ($PREFIX/lib/systemd/system)
#   HELPERS  where mount(8) finds its helpers (/sbin; /usr/sbin if PREFIX is /usr)
#   ETC      where the configuration is; a file that is there stays (/etc/binderd)
set -euo pipefail
cd "$(dirname "$0")/.."

PREFIX=${PREFIX:-/usr/local}
DESTDIR=${DESTDIR:-}
PYTHON=${PYTHON:-/usr/bin/python3}
MANUAL=${MANUAL:-build/manual}
UNITS=${UNITS:-$PREFIX/lib/systemd/system}
if [[ $PREFIX == /usr ]]; then HELPERS=${HELPERS:-/usr/sbin}; else HELPERS=${HELPERS:-/sbin}; fi
ETC=${ETC:-/etc/binderd}
DOCUMENTS=$PREFIX/share/doc/binderd
MANIFEST=$PREFIX/lib/binderd/installed-files
PRISTINE=$PREFIX/lib/binderd/binderd.toml # the configuration as it was installed
installed=()

die() { printf 'install: %s\n' "$*" >&2 && exit 1; }

# put MODE TARGET SOURCE - installs a file. Not in a pipeline: it would be forgotten.
put() {
    local folder=${2%/*} made=()
    while [[ -n $folder && ! -d $DESTDIR$folder ]]; do
        made=("$folder/" "${made[@]}")
        folder=${folder%/*}
    done
    installed+=("${made[@]}")
    install -D -m "$1" "$3" "$DESTDIR$2"
    installed+=("$2")
}

# put_tree SOURCE TARGET - installs all files below a folder.
put_tree() {
    local file mode
    while IFS= read -r -d '' file; do
        mode=644
        case $file in *-worker) mode=755 ;; esac # a program; wheels are unpacked without modes
        put "$mode" "$2/$file" "$1/$file"
    done < <(cd "$1" && find . -type f ! -path '*/__pycache__/*' -printf '%P\0' | sort -z)
}

put_files() {
    local file name header
    for header in binderd binderd_lane; do
        put 644 "$PREFIX/include/$header.h" "client/include/$header.h"
    done
    put_tree "$MANUAL/share" "$PREFIX/share"
    # It is for umount(8) to call, with what mount.binder's page says.
    put 644 "$PREFIX/share/man/man8/umount.fuse.binderd.8" <(echo ".so man8/mount.binder.8")
    put_tree client/examples "$DOCUMENTS/examples"
    for file in README.md CHANGELOG.md docs/*.md; do
        put 644 "$DOCUMENTS/${file##*/}" "$file"
    done
    [[ -e $DESTDIR$ETC/binderd.toml ]] || put 644 "$ETC/binderd.toml" "$MANUAL/etc/binderd.toml"
    put 644 "$DOCUMENTS/binderclient.md" client/README.md
    for file in systemd/*.service systemd/*.socket systemd/*.path; do
        [[ -f $file ]] || continue
        put 644 "$UNITS/${file##*/}" <(sed "s|/usr/bin/|$PREFIX/bin/|g" "$file")
    done
    for file in systemd/*.sysusers systemd/*.tmpfiles; do
        [[ -f $file ]] || continue
        name=${file##*/}
        put 644 "$PREFIX/lib/${name##*.}.d/${name%.*}.conf" "$file"
    done
}

# The folder for Python packages below PREFIX that PYTHON searches by itself, if there is one.
find_site() {
    "$PYTHON" -I - "$PREFIX" <<'EOF'
import site, sys
prefix = sys.argv[1].rstrip("/")
others = "/usr/local/" if prefix == "/usr" else "\0"
for path in site.getsitepackages():
    if path.startswith(prefix + "/") and not path.startswith(others):
        print(path)
        break
EOF
}

put_python() {
    local wheel=$1 site unpacked apart=
    [[ -f $wheel ]] || die "there is no wheel $wheel: run 'make wheel' first"
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "$PYTHON is older than Python 3.11"
    if [[ -z $DESTDIR ]]; then
        "$PYTHON" -I -c 'import construct, pyfuse3, trio' ||
            die "$PYTHON lacks what binderd runs on; Debian: apt-get install" \
                "python3-construct python3-pyfuse3 python3-trio"
    fi
    site=$(find_site)
    [[ -n $site ]] || apart=$PREFIX/lib/binderd/python
    site=${site:-$apart}
    unpacked=$(mktemp -d)
    "$PYTHON" -m zipfile -e "$wheel" "$unpacked"
    put_tree "$unpacked" "$site"
    put_command binderd binderd.__main__:main "$apart"
    put_command binderctl binderclient.commandline:main "$apart"
    put_command binder-servicemanager binderclient.commandline:serve_manager "$apart"
    put_command binderclient-aidl binderclient.aidl.command:main "$apart"
    put_command mount.binder binderd.mount_helper:main "$apart" "$HELPERS"
    put_command umount.fuse.binderd binderd.mount_helper:unmount "$apart" "$HELPERS"
    rm -rf "$unpacked"
    [[ -n $DESTDIR ]] || "$PREFIX/bin/binderd" --version || die "it does not run with $PYTHON"
}

# put_command NAME MODULE:FUNCTION FOLDER [PLACE] - FOLDER is empty where PYTHON finds the module by
# itself; PLACE is where the command goes ($PREFIX/bin).
put_command() {
    local lines=()
    if [[ -n $3 ]]; then
        lines+=("sys.path.insert(0, \"$3\")")
        # The daemon starts Python once more; 'binderctl run' must not hand it to other programs.
        [[ $1 == binderctl ]] || lines+=("os.environ[\"PYTHONPATH\"] = \"$3\"")
    fi
    put 755 "${4:-$PREFIX/bin}/$1" <(
        printf '%s\n' "#!$PYTHON" "# $1 - made by systemd/install.sh" "import os" "import sys" ""
        printf '%s\n' "${lines[@]}" "from ${2%:*} import ${2#*:}" "" "sys.exit(${2#*:}())"
    )
}

uninstall() {
    local number path
    [[ -f $DESTDIR$MANIFEST ]] || die "nothing is installed below $DESTDIR$PREFIX"
    mapfile -t installed <"$DESTDIR$MANIFEST"
    for ((number = ${#installed[@]} - 1; number >= 0; number--)); do
        path=$DESTDIR${installed[number]}
        if [[ $path == "$DESTDIR$ETC/binderd.toml" ]]; then
            cmp -s "$path" "$DESTDIR$PRISTINE" || continue # an administrator's work
        fi
        case $path in
            */) rmdir "${path%/}" 2>/dev/null || true ;; # somebody else has put something there
            *.py) rm -rf "$path" "${path%/*}/__pycache__" ;;
            *) rm -f "$path" ;;
        esac
    done
    installed=()
}

[[ $PREFIX == /* && $PREFIX != *[\"\'\|\&\\[:space:]]* ]] || die "PREFIX=$PREFIX is no plain absolute path"
case "${1-}" in
    files) put_files ;;
    all)
        [[ ! -f $DESTDIR$MANIFEST ]] || uninstall # an older one
        put 644 "$PRISTINE" "$MANUAL/etc/binderd.toml" # first, so that it goes last
        put_python "${2-}"
        put_files
        printf '%s\n' "${installed[@]}" "$MANIFEST" >"$DESTDIR$MANIFEST"
        ;;
    uninstall) uninstall ;;
    *) die "usage: install.sh all WHEEL | files | uninstall" ;;
esac
