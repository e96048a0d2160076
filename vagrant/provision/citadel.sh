#!/bin/sh
# citadel: a virtual environment of its own, installed from the wheels in the payload, without any network.
. "$(dirname "$0")/lib.sh"

install -d /opt/citadel /etc/citadel /var/lib/citadel /var/log/citadel
[ -x /opt/citadel/bin/python ] || python3 -m venv /opt/citadel

# The stamp names the wheels that are installed: the version alone does not change between two builds.
if ! cmp -s "$LAB/wheels.sha256" /opt/citadel/wheels.sha256; then
    /opt/citadel/bin/pip install -q --disable-pip-version-check --no-index --find-links "$LAB/wheels" \
        --upgrade "$LAB"/wheels/citadel_consul-*.whl
    /opt/citadel/bin/pip install -q --disable-pip-version-check --no-index --no-deps --force-reinstall \
        "$LAB"/wheels/citadel_consul-*.whl
    install -m 644 "$LAB/wheels.sha256" /opt/citadel/wheels.sha256
fi
ln -sf /opt/citadel/bin/citadel /usr/local/bin/citadel

put "$FILES/citadel-agent.service" /etc/systemd/system/citadel-agent.service || true
put "$FILES/citadel-orchestrator.service" /etc/systemd/system/citadel-orchestrator.service || true
put "$LAB/services/lab_service.py" /opt/citadel/services/lab_service.py || true
reload_units
