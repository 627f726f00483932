#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# shells.sh - does completion work in bash, zsh and fish, where it is installed below /usr?
set -euo pipefail

fail() { printf 'shells: %s\n' "$*" >&2 && exit 1; }

# shellcheck source=/dev/null
bash_completes() {
    local COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
    . "/usr/share/bash-completion/completions/$1"
    "_${1//-/_}"
    printf '%s\n' "${COMPREPLY[@]}"
}

# A shell with a terminal, which types a line and a tab.
zsh_completes() {
    zsh -fc '
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PS1=; autoload -Uz compinit && compinit -u -d /tmp/zcompdump"
zpty -w shell "zstyle \":completion:*\" list-prompt \"\"; bindkey \"^I\" complete-word; print READY\$((1))"
local out all
while zpty -r shell out && [[ $out != *READY1* ]]; do :; done
zpty -n -w shell "$1"$'"'\\\\t'"'
while zpty -t shell || zpty -r -t shell out || true; do
    zpty -r -t shell out && all+=$out
    [[ $all == *$2* || $((SECONDS > 20)) == 1 ]] && break
done
print -r -- "$all"' zsh "$1" "$2"
}

for line in "binderd --tr:--transport" "binderd --transport c:cuse" "binderctl li:list" \
    "binderctl list --js:--json"; do
    words=${line%%:*} wanted=${line#*:}
    # shellcheck disable=SC2086 # split
    bash_completes $words | grep -qxe "$wanted" || fail "bash: $words"
    fish -c "complete -C'$words'" | cut -f1 | grep -qxe "$wanted" || fail "fish: $words"
    zsh_completes "$words" "$wanted" | grep -qFe "$wanted" || fail "zsh: $words"
done
printf 'shells: bash, zsh and fish complete\n'
