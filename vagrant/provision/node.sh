#!/bin/sh
# What makes this machine the node LAB_NODE: Consul's configuration (consul.d as it is, and one file of the node's
# own), and citadel, installed as on any machine.
. "$(dirname "$0")/lib.sh"

: "${LAB_NODE:?}" "${LAB_ROLE:?}" "${LAB_ADDRESS:?}" "${LAB_SERVERS:?}" "${LAB_ORCHESTRATOR:?}"
: "${LAB_DATACENTER:?}" "${LAB_STACK:?}"

put "$FILES/lab-partition" /usr/local/sbin/lab-partition 755 || true

consul_changed=
for name in "$LAB_ROLE" dns telemetry; do
    ! put "$LAB/consul.d/$name.hcl" "/etc/consul.d/$name.hcl" || consul_changed=1
done

# shellcheck disable=SC2086 # a list of addresses
servers=$(printf '"%s", ' $LAB_SERVERS)
! put_text /etc/consul.d/zz-node.json <<EOF || consul_changed=1
{
  "datacenter": "$LAB_DATACENTER",
  "node_name": "$LAB_NODE",
  "bind_addr": "$LAB_ADDRESS",
  "client_addr": "127.0.0.1 $LAB_ADDRESS",
  "retry_join": [${servers%, }],
  "retry_interval": "1s"
}
EOF
chown -R root:consul /etc/consul.d
chmod -R u=rwX,g=rX,o= /etc/consul.d
runuser -u consul -- consul validate /etc/consul.d >/dev/null

# start_or_restart UNIT CHANGED
start_or_restart() {
    systemctl enable -q "$1"
    if [ -n "$2" ]; then systemctl restart "$1"; else systemctl start "$1"; fi
}

start_or_restart consul.service "$consul_changed"

# The units are those of any installation. A node agent is ready when Consul has a leader, which the first node of the
# lab would wait for in vain: nobody waits for it here.
install_citadel() {
    /opt/citadel/bin/citadel install "$1" --no-start --stack "$LAB_STACK" --node "$LAB_NODE" \
        --node-address "$LAB_ADDRESS" --api-bind "$LAB_ADDRESS:8000" --api-allow-insecure-bind \
        --consul-address http://127.0.0.1:8500
}
if [ -x /opt/citadel/bin/citadel ]; then
    roles=agent
    [ "$LAB_ORCHESTRATOR" != true ] || roles="agent orchestrator"
    for role in $roles; do install_citadel "$role"; done
    # shellcheck disable=SC2086 # a list of roles
    units=$(printf 'citadel-%s.service ' $roles)
    order=start
    ! cat /opt/citadel/*.sha256 /opt/citadel/config/*.yaml /etc/systemd/system/citadel-*.service | sha256sum |
        put_text /var/lib/citadel-lab/running.sha256 || order=restart
    # shellcheck disable=SC2086 # a list of units
    systemctl "$order" --no-block $units
fi
