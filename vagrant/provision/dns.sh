#!/bin/sh
# DNS forwarding: names under .consul go to Consul's DNS port, all others where they went before. Two recipes,
# dnsmasq and systemd-resolved; LAB_DNS chooses, and an image (where it is not set) holds both, with neither enabled.
. "$(dirname "$0")/lib.sh"

changed=
! put "$FILES/dnsmasq-consul.conf" /etc/dnsmasq.d/10-consul.conf || changed=1
! put "$FILES/resolved-consul.conf" /etc/systemd/resolved.conf.d/consul.conf || changed=1
put "$FILES/lab-resolv" /usr/local/sbin/lab-resolv 755 || true
! put "$FILES/lab-resolv.service" /etc/systemd/system/lab-resolv.service || changed=1
reload_units

case "${LAB_DNS:-}" in
dnsmasq)
    forwarder=dnsmasq.service address=127.0.0.1
    systemctl disable -q --now systemd-resolved.service
    ;;
resolved)
    forwarder=systemd-resolved.service address=127.0.0.53
    systemctl disable -q --now dnsmasq.service
    ;;
*)
    systemctl disable -q dnsmasq.service systemd-resolved.service
    exit 0
    ;;
esac

! echo "LAB_RESOLVER=$address" | put_text /etc/default/lab-resolv || changed=1
systemctl enable -q "$forwarder" lab-resolv.service
if [ -n "$changed" ]; then
    systemctl restart lab-resolv.service "$forwarder"
else
    systemctl start lab-resolv.service "$forwarder"
fi
