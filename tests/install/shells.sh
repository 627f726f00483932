#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# shells.sh - does completion work in bash, zsh and fish, where it is installed below /usr?
set -euo pipefail # so no "grep -q" in a pipeline: it ends before those who write to it

fail() { printf 'shells: %s\n' "$*" >&2 && exit 1; }

# shellcheck source=/dev/null
bash_completes() {
    local COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
    . "/usr/share/bash-completion/completions/$1"
    "_${1//-/_}"
    printf '%s\n' "${COMPREPLY[@]}"
}

# A shell with a terminal, in which somebody types a line and a tab; says what it shows then.
zsh_completes() {
    python3 - "$1" "$2" <<'EOF'
import os, pty, select, sys, time

line, wanted = (word.encode() for word in sys.argv[1:])
process, terminal = pty.fork()
if process == 0:
    os.execvp("zsh", ["zsh", "-f", "-i"])
shown = b""


def until(text: bytes, seconds: float = 30) -> bool:
    global shown
    deadline = time.monotonic() + seconds
    while text not in shown and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 4096)
    return text in shown


os.write(terminal, b"PS1=; autoload -Uz compinit && compinit -u -d /tmp/zcompdump; print REA''DY\n")
until(b"READY")
shown = b""
os.write(terminal, line + b"\t\t")
until(wanted)
print(shown.decode(errors="replace"))
os.close(terminal)
EOF
}

for line in "binderd --tr:--transport" "binderd --transport c:cuse" "binderctl li:list" \
    "binderctl list --js:--json"; do
    words=${line%%:*} wanted=${line#*:}
    # shellcheck disable=SC2086 # split
    bash_completes $words | grep -xe "$wanted" >/dev/null || fail "bash: $words"
    fish -c "complete -C'$words'" | cut -f1 | grep -xe "$wanted" >/dev/null || fail "fish: $words"
    zsh_completes "$words" "$wanted" | grep -Fe "$wanted" >/dev/null || fail "zsh: $words"
done
printf 'shells: bash, zsh and fish complete\n'
