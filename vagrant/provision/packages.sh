#!/bin/sh
# Install the packages that are missing. An image has them all, so this does nothing there. A virtual machine gets only
# the DNS forwarder that it uses: each of the two takes resolv.conf, or its port, from the other when it is installed.
. "$(dirname "$0")/lib.sh"

missing=
while read -r package; do
    case "${LAB_DNS:-}:$package" in
    dnsmasq:systemd-resolved | resolved:dnsmasq) continue ;;
    esac
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done <"$LAB/provision/packages.txt"

if [ -n "$missing" ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    # shellcheck disable=SC2086 # a list of names
    apt-get install -q -y --no-install-recommends $missing
fi

# citadel starts redis, and dns.sh chooses the forwarder: neither may start by itself.
systemctl mask -q redis-server.service 2>/dev/null || true
! booted || systemctl stop redis-server.service 2>/dev/null || true
