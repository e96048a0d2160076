#!/bin/sh
# What makes this machine the node LAB_NODE: Consul's configuration (consul.d as it is, and one file of the node's
# own), citadel's environment, and the units that run here.
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

citadel_changed=
! put_text /etc/citadel/citadel.env 640 <<EOF || citadel_changed=1
CONSUL_HTTP_ADDR=http://127.0.0.1:8500
CITADEL_STACK=$LAB_STACK
CITADEL_NODE=$LAB_NODE
CITADEL_NODE_ADDRESS=$LAB_ADDRESS
# The lab's network is this machine's alone, hence no TLS.
CITADEL_API_BIND=$LAB_ADDRESS:8000
CITADEL_API_ALLOW_INSECURE_BIND=true
EOF

# start_or_restart UNIT CHANGED
start_or_restart() {
    systemctl enable -q "$1"
    if [ -n "$2" ]; then systemctl restart "$1"; else systemctl start "$1"; fi
}

start_or_restart consul.service "$consul_changed"
if [ -x /opt/citadel/bin/citadel ]; then
    installed=$(cat /opt/citadel/wheels.sha256 /opt/citadel/citadel.sha256)
    ! echo "$installed" | put_text /var/lib/citadel-lab/running.sha256 || citadel_changed=1
    start_or_restart citadel-agent.service "$citadel_changed"
    if [ "$LAB_ORCHESTRATOR" = true ]; then
        start_or_restart citadel-orchestrator.service "$citadel_changed"
    fi
fi
