#!/bin/sh
# Provision a running node, whatever the provider. Steps that an image already holds find nothing to do. Vagrant says
# which node it is, in the environment; that is noted, so that later runs need no Vagrant.
set -eu

note=/etc/default/lab-node
if [ -n "${LAB_NODE:-}" ]; then
    env | sed -n "s/^\(LAB_[A-Z]*\)=\(.*\)/\1='\2'/p" >"$note"
else
    set -a
    # shellcheck source=/dev/null
    . "$note"
    set +a
fi

for step in packages consul citadel dns node; do
    "/opt/lab/provision/$step.sh"
done
install -D -m 644 /opt/lab/payload.sha256 /var/lib/citadel-lab/payload.sha256
