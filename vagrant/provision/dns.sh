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
    other=systemd-resolved.service
    # A virtual machine's resolv.conf is written anew at each lease.
    dhclient=/etc/dhcp/dhclient.conf
    if [ -f "$dhclient" ] && ! grep -qx 'prepend domain-name-servers 127.0.0.1;' "$dhclient"; then
        echo 'prepend domain-name-servers 127.0.0.1;' >>"$dhclient"
    fi
    ;;
resolved)
    forwarder=systemd-resolved.service address=127.0.0.53
    other=dnsmasq.service
    ;;
*)
    systemctl disable -q dnsmasq.service systemd-resolved.service
    exit 0
    ;;
esac

! echo "LAB_RESOLVER=$address" | put_text /etc/default/lab-resolv || changed=1
if [ -e "/lib/systemd/system/$other" ]; then systemctl disable -q --now "$other"; fi
systemctl enable -q "$forwarder" lab-resolv.service
if [ -n "$changed" ]; then
    systemctl restart lab-resolv.service "$forwarder"
else
    systemctl start lab-resolv.service "$forwarder"
fi
