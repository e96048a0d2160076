# shellcheck shell=sh disable=SC2034
# Shared by the provisioning scripts; sourced, not run. Each script may run any number of times, in an image that is
# being built (no systemd) and on a running node.

set -eu

LAB=/opt/lab
FILES=$LAB/provision/files

booted() { [ -d /run/systemd/system ]; }

# put SOURCE DEST [MODE]: copy when it differs; true only if something changed.
put() {
    cmp -s "$1" "$2" && return 1
    install -D -m "${3:-644}" "$1" "$2"
}

# put_text DEST [MODE]: the same for standard input.
put_text() {
    text=$(mktemp)
    cat >"$text"
    if put "$text" "$1" "${2:-644}"; then changed=0; else changed=1; fi
    rm -f "$text"
    return "$changed"
}

reload_units() { ! booted || systemctl daemon-reload; }
