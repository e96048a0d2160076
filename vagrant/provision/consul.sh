#!/bin/sh
# Consul: the host's binary, a user, directories, the unit. What differs between nodes is node.sh's part.
. "$(dirname "$0")/lib.sh"

id -u consul >/dev/null 2>&1 || useradd --system --home-dir /opt/consul --shell /usr/sbin/nologin consul
install -d -o consul -g consul -m 750 /opt/consul
install -d -o root -g consul -m 750 /etc/consul.d
put "$LAB/consul" /usr/local/bin/consul 755 || true
put "$FILES/consul.service" /etc/systemd/system/consul.service || true
systemctl enable -q consul.service
reload_units
