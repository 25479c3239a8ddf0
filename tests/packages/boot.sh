#!/bin/bash
# The packages on a Debian system that runs: started by systemd inside of a container, as the
# last thing of its boot. The packages are in /packages, what was found goes to /result.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
exec >/result 2>&1
trap 'code=$?; [ $code = 0 ] || { echo "WRONG: line $LINENO"; journalctl --no-pager -u hbd -u hbc | tail -n 40; }; systemctl --no-block poweroff' EXIT

wrong() {
    echo "WRONG: $*"
    exit 1
}

# until_it COMMAND ...: waits for a fact.
until_it() {
    local tries
    for tries in $(seq 300); do
        if "$@" >/dev/null 2>&1; then return; fi
        read -rt 0.2 <> <(:) || true
    done
    wrong "after a minute still not: $*"
}

says() {
    journalctl --no-pager -o cat -u "$1" | grep -qF "$2"
}

main_process() {
    systemctl show -P MainPID hbd
}

echo '- install: the daemon runs with the safe default'
dpkg -i /packages/now/*.deb >/log 2>&1 || { cat /log; wrong "dpkg -i"; }
systemctl is-active --quiet hbd || wrong "hbd does not run"
until_it says hbd 'is ready: '
[ "$(ps -o user= -p "$(main_process)")" = hbd ] || wrong "hbd is not its own user"
runuser -u nobody -- bash -c 'exec 3<>/dev/tcp/127.0.0.1/9099; printf "GET /-/healthy HTTP/1.0\r\n\r\n" >&3; grep -q 200 <&3' ||
    wrong "it does not answer"
for unit in hbd hbc; do
    systemd-analyze security --no-pager $unit.service | tail -n 1
    systemd-analyze security --no-pager --threshold=15 $unit.service >/dev/null || wrong "$unit: exposure"
done

echo '- a host beats, the daemon is killed, systemd starts it again, the state is there'
printf '{"host":"web1"}' >/dev/udp/127.0.0.1/9099
hosts() { bash -c 'exec 3<>/dev/tcp/127.0.0.1/9099; printf "GET /api/v1/hosts HTTP/1.0\r\n\r\n" >&3; cat <&3'; }
until_it bash -c "$(declare -f hosts); hosts | grep -q '\"UP\"'"
before=$(main_process)
kill -9 "$before"
until_it bash -c "[ \$(systemctl show -P MainPID hbd) != $before ] && systemctl is-active hbd"
until_it bash -c "$(declare -f hosts); hosts | grep -q web1"

echo '- reload: a bad configuration is refused, and told'
cp /etc/hbd/heartbeat.yaml /root/kept.yaml
echo 'hots: {}' >>/etc/hbd/heartbeat.yaml
! systemctl reload hbd || wrong "a bad configuration was reloaded"
says hbd 'hots: unknown key, did you mean "hosts"?' || wrong "the journal does not say what is wrong"
systemctl is-active --quiet hbd || wrong "a refused reload ended the daemon"
echo '- a restart with it fails, and is not tried for ever'
! systemctl restart hbd || wrong "it started with a bad configuration"
until_it bash -c '[ "$(systemctl show -P ActiveState hbd)" = failed ]'
cp /root/kept.yaml /etc/hbd/heartbeat.yaml
systemctl start hbd
systemctl reload hbd
until_it says hbd 'the configuration was reloaded'

echo '- a secret that only root can read arrives as a credential'
(umask 077; echo 0123456789abcdef0123456789abcdef >/etc/hbd/secrets/key)
echo 'heartbeat: {key_file: secrets/key}' >>/etc/hbd/heartbeat.yaml
systemctl restart hbd || wrong "it does not start with a credential"

echo '- hbc speaks for this machine and says goodbye'
(umask 077; cp /etc/hbd/secrets/key /etc/hbc/secrets/key)
printf 'server: 127.0.0.1:9099\nkey_file: secrets/key\nhost: web1\n' >/etc/hbc/hbc.yaml
systemctl restart hbc || wrong "hbc does not start"
until_it bash -c "$(declare -f hosts); hosts | grep -q memory_monitor"

echo '- upgrade: it stays up, with its state'
before=$(main_process)
dpkg -i /packages/later/*.deb >/log 2>&1 || { cat /log; wrong "the upgrade"; }
systemctl is-active --quiet hbd && systemctl is-active --quiet hbc || wrong "it did not stay up"
[ "$(main_process)" != "$before" ] || wrong "the old one runs on"
until_it bash -c "$(declare -f hosts); hosts | grep -q web1"

echo '- remove and purge'
dpkg -P hbc hbd >/log 2>&1 || { cat /log; wrong "dpkg -P"; }
! pgrep -x 'hbd|hbc' || wrong "it still runs"
[ ! -e /var/lib/hbd ] && [ ! -e /var/lib/hbc ] && [ ! -e /etc/hbd ] || wrong "something is left"
systemctl --failed --no-legend | grep -E 'hb[dc]' && wrong "systemd still complains"
echo fine
