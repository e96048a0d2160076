#!/bin/sh
# What a site's scripts call: a thin way to `citadel`, from this checkout or from the PATH.

set -eu

usage() {
    cat <<'HELP'
Usage: orchestrator_control.sh --test-full-cycle [--phase N] [-o json] [OPTION]...
       orchestrator_control.sh --status [OPTION]...
       orchestrator_control.sh --help

  --test-full-cycle   run the full-cycle drill on the running stack (citadel drill)
  --status            show the stack: leader, services, what is wrong (citadel status)
  --help              show this

Every other option goes to citadel; `citadel drill --help` lists those of the drill.
Exit status of the test: 0 every line passed, 1 one of them failed, 2 bad input,
3 Consul unreachable or no leader, 4 refused.
HELP
}

run_citadel() {
    here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
    if [ -x "$here/../.venv/bin/citadel" ]; then
        exec "$here/../.venv/bin/citadel" "$@"
    fi
    if command -v citadel >/dev/null 2>&1; then
        exec citadel "$@"
    fi
    echo "orchestrator_control.sh: citadel is not installed: run bin/setup, or pip install citadel-consul" >&2
    exit 2
}

case "${1:-}" in
--test-full-cycle)
    shift
    run_citadel drill "$@"
    ;;
--status)
    shift
    run_citadel status "$@"
    ;;
--help | -h)
    usage
    ;;
*)
    usage >&2
    exit 2
    ;;
esac
