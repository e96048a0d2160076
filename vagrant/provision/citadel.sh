#!/bin/sh
# citadel: a virtual environment of its own, installed from the wheels in the payload, without any network.
. "$(dirname "$0")/lib.sh"

install -d /opt/citadel
[ -x /opt/citadel/bin/python ] || python3 -m venv /opt/citadel

# The stamps name the wheels that are installed: citadel's version alone does not change between two builds.
pip() { /opt/citadel/bin/pip "$@" -q --disable-pip-version-check --no-index --no-deps; }
if ! cmp -s "$LAB/wheels.sha256" /opt/citadel/wheels.sha256; then
    pip install --upgrade "$LAB"/wheels/*.whl
    install -m 644 "$LAB/wheels.sha256" /opt/citadel/wheels.sha256
fi
if ! cmp -s "$LAB/citadel.sha256" /opt/citadel/citadel.sha256; then
    pip install --force-reinstall "$LAB"/citadel/*.whl
    /opt/citadel/bin/pip check -q --disable-pip-version-check
    install -m 644 "$LAB/citadel.sha256" /opt/citadel/citadel.sha256
fi
ln -sf /opt/citadel/bin/citadel /usr/local/bin/citadel

put "$LAB/services/lab_service.py" /opt/citadel/services/lab_service.py || true
