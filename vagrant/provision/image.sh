#!/bin/sh
# Prepare the docker provider's image: all that is the same on every node, so that booting one costs no installation.
# Runs in a container of the base image in which no systemd runs.
. "$(dirname "$0")/lib.sh"

for step in packages consul citadel dns; do
    "$LAB/provision/$step.sh"
done

# The account that Vagrant logs in with, as on Vagrant's boxes.
id -u vagrant >/dev/null 2>&1 || useradd --create-home --shell /bin/bash vagrant
install -d -o vagrant -g vagrant -m 700 /home/vagrant/.ssh
install -o vagrant -g vagrant -m 600 "$LAB/authorized_keys" /home/vagrant/.ssh/authorized_keys
echo 'vagrant ALL=(ALL) NOPASSWD: ALL' | put_text /etc/sudoers.d/vagrant 440 || true
echo 'UseDNS no' | put_text /etc/ssh/sshd_config.d/lab.conf || true

# A container has no console, no clock and no disks of its own, and its log need not outlive it.
put "$FILES/journald.conf" /etc/systemd/journald.conf.d/lab.conf || true
systemctl mask -q systemd-logind.service console-getty.service getty.target systemd-remount-fs.service \
    systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-timesyncd.service \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer
systemctl set-default -q multi-user.target
# Every container must get its own.
: >/etc/machine-id
