#!/bin/bash
# The life of the packages on a Debian system that does not run (a chroot): install, configure,
# upgrade, remove, purge. Runs inside; the packages are in /packages.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8

wrong() {
    echo "WRONG: $*" >&2
    exit 1
}

# is EXPECTED COMMAND ...
is() {
    local expected=$1 found
    shift
    found=$("$@" 2>&1) || true
    [ "$found" = "$expected" ] || wrong "$*: \"$found\", and not \"$expected\""
}

gone() {
    local path
    for path in "$@"; do
        [ ! -e "$path" ] || wrong "$path is still there"
    done
}

echo '- from a version that had the configuration as conffiles: nothing is asked, what was edited stays'
dpkg -i /packages/before/*.deb >/log 2>&1 || { cat /log; wrong "dpkg -i"; }
echo '# mine' >>/etc/hbd/heartbeat.yaml
chmod 0600 /etc/hbd/heartbeat.yaml
echo key >/etc/hbc/secrets/key
dpkg -i /packages/now/*.deb >/log 2>&1 </dev/null || { cat /log; wrong "the upgrade"; }
is '# As it was.' head -n 1 /etc/hbd/heartbeat.yaml
is '# mine' tail -n 1 /etc/hbd/heartbeat.yaml
is '600 root:hbd' stat -c '%a %U:%G' /etc/hbd/heartbeat.yaml
is '# As it was.' head -n 1 /etc/hbc/hbc.yaml
is '640 root:hbc' stat -c '%a %U:%G' /etc/hbc/hbc.yaml
is '700 root:root' stat -c '%a %U:%G' /etc/hbc/secrets
is '700 root:root' stat -c '%a %U:%G' /etc/hbd/secrets
is key cat /etc/hbc/secrets/key
is enabled systemctl is-enabled hbd
dpkg -i /packages/later/*.deb >/log 2>&1 </dev/null || { cat /log; wrong "the next upgrade"; }
is '# mine' tail -n 1 /etc/hbd/heartbeat.yaml
dpkg -P hbd hbc >/log 2>&1 || { cat /log; wrong "dpkg -P"; }
gone /etc/hbd /etc/hbc

echo '- install'
dpkg -i /packages/now/*.deb >/log 2>&1 || { cat /log; wrong "dpkg -i"; }
is '640 root:hbd' stat -c '%a %U:%G' /etc/hbd/heartbeat.yaml
is '640 root:hbc' stat -c '%a %U:%G' /etc/hbc/hbc.yaml
is '700 root:root' stat -c '%a %U:%G' /etc/hbd/secrets
is '2750 root:hbc' stat -c '%a %U:%G' /etc/hbc/secrets
is enabled systemctl is-enabled hbd
is enabled systemctl is-enabled hbc
is '/usr/sbin/nologin' sh -c 'getent passwd hbd | cut -d: -f7'
is '' sh -c 'runuser -u hbd -- hbd check | grep -v "^OK:"'
runuser -u nobody -- hbd --version >/dev/null
systemd-analyze verify --man=no hbd.service hbc.service || wrong "systemd-analyze verify"

echo '- jobs of users whom the administrator lets beat as this host'
useradd ann
adduser --quiet ann hbc
(umask 077; echo 0123456789abcdef0123456789abcdef >/etc/hbc/secrets/key)
chmod 640 /etc/hbc/secrets/key
is '640 root:hbc' stat -c '%a %U:%G' /etc/hbc/secrets/key
sed -i 's/^server: .*/server: 127.0.0.1/' /etc/hbc/hbc.yaml
is 0 sh -c 'runuser -u ann -- hbc send 2>&1 | grep -c "Permission denied"'
is done sh -c 'runuser -u ann -- hbc exec -- echo done 2>/dev/null'
is 1 sh -c 'runuser -u nobody -- hbc send 2>&1 | grep -c "Permission denied"'

echo '- upgrade'
echo '# mine' >>/etc/hbd/heartbeat.yaml
chmod 0600 /etc/hbd/heartbeat.yaml
install -d -o hbd -g hbd -m 0700 /var/lib/hbd
echo state >/var/lib/hbd/heartbeat.redb
systemctl disable --quiet hbc
# The administrator has closed the one to the group, and opened the other to it.
chown root:root /etc/hbc/secrets
chmod 00700 /etc/hbc/secrets
chown root:hbd /etc/hbd/secrets
chmod 0750 /etc/hbd/secrets
dpkg -i /packages/later/*.deb >/log 2>&1 </dev/null || { cat /log; wrong "the upgrade"; }
is '' grep -n warning /log
is 'server: 127.0.0.1' grep '^server' /etc/hbc/hbc.yaml
is '# mine' tail -n 1 /etc/hbd/heartbeat.yaml
is '600 root:hbd' stat -c '%a %U:%G' /etc/hbd/heartbeat.yaml
is '700 root:root' stat -c '%a %U:%G' /etc/hbc/secrets
is '750 root:hbd' stat -c '%a %U:%G' /etc/hbd/secrets
is state cat /var/lib/hbd/heartbeat.redb
is disabled systemctl is-enabled hbc
is enabled systemctl is-enabled hbd

echo '- remove'
dpkg -r hbd hbc >/log 2>&1 || { cat /log; wrong "dpkg -r"; }
gone /usr/bin/hbd /usr/bin/hbc /usr/lib/systemd/system/hbd.service
is '# mine' tail -n 1 /etc/hbd/heartbeat.yaml
is state cat /var/lib/hbd/heartbeat.redb
is '' grep -n warning /log

echo '- again'
dpkg -i /packages/later/hbd.deb >/log 2>&1 || { cat /log; wrong "the second installation"; }
is '# mine' tail -n 1 /etc/hbd/heartbeat.yaml
is enabled systemctl is-enabled hbd

echo '- purge'
echo key >/etc/hbd/secrets/key
dpkg -P hbd hbc >/log 2>&1 || { cat /log; wrong "dpkg -P"; }
userdel ann
gone /etc/hbd /etc/hbc /var/lib/hbd /var/lib/hbc /etc/systemd/system/multi-user.target.wants/hbd.service \
    /etc/systemd/system/hbd.service /etc/systemd/system/hbc.service
! getent passwd hbd hbc || wrong "a user is left"
! grep -q warning /log || { cat /log; wrong "dpkg warned"; }
is '' sh -c 'find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /packages \) -prune -o \( -name "*hbd*" -o -name "*hbc*" -o -name "heartbeat*" \) -print'
echo fine
