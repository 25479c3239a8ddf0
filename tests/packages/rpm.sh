#!/bin/bash
# The life of the RPM packages: tests/packages/rpm.sh ROOT PACKAGES. ROOT is a system as tests/packages/root
# makes it: what an Enterprise Linux has in packages (shadow-utils, systemd) is there, rpm knows nothing of it.
# Starts itself again with mounts and processes of its own.
set -euo pipefail
export LC_ALL=C.UTF-8
root=$1 packages=$(cd "$2" && pwd)
if [ "${3-}" != inside ]; then
    exec unshare --mount --pid --fork "--mount-proc=$root/proc" "$0" "$root" "$packages" inside
fi

wrong() {
    echo "WRONG: $*" >&2
    exit 1
}

# is EXPECTED COMMAND ... : in the root.
is() {
    local expected=$1 found
    shift
    found=$(chroot "$root" env PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@" 2>&1) || true
    [ "$found" = "$expected" ] || wrong "$*: \"$found\", and not \"$expected\""
}

# What rpm says is shown when it fails, or says anything at all.
rpm_in_root() {
    local said
    said=$(rpm --force-debian --root "$root" "$@" 2>&1) || wrong "rpm $*: $said"
    [ -z "$said" ] || wrong "rpm $*: $said"
}

machine=$(uname -m)
files=("$packages"/hb[cd]-*."$machine".rpm)

echo '- what they need: a C library as old as that of Enterprise Linux 9'
for file in "${files[@]}"; do
    newest=$(rpm -qp --requires "$file" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
    [ "$(printf '%s\nGLIBC_2.34\n' "$newest" | sort -V | tail -n 1)" = GLIBC_2.34 ] || wrong "$file needs $newest"
    said=$(rpm -K --nosignature "$file") || wrong "$said"
done

echo '- install'
rm -rf "$root/usr/lib/systemd/system-preset"
rpm_in_root --nodeps -i "${files[@]}"
is '640 root:hbd' stat -c '%a %U:%G' /etc/hbd/heartbeat.yaml
is '640 root:hbc' stat -c '%a %U:%G' /etc/hbc/hbc.yaml
is '700 root:root' stat -c '%a %U:%G' /etc/hbd/secrets
is '2750 root:hbc' stat -c '%a %U:%G' /etc/hbc/secrets
is '755 root:root' stat -c '%a %U:%G' /usr/bin/hbd
is '/sbin/nologin' sh -c 'getent passwd hbd | cut -d: -f7'
is enabled systemctl is-enabled hbd
is '' sh -c 'runuser -u hbd -- hbd check | grep -v "^OK:"'
is '' systemd-analyze verify --man=no hbd.service hbc.service
is '' cmp /etc/hbd/heartbeat.yaml /usr/share/doc/hbd/examples/heartbeat.yaml
said=$(rpm --root "$root" -V --nodeps hbd hbc) || wrong "rpm -V: $said"

echo '- upgrade'
echo '# mine' >>"$root/etc/hbd/heartbeat.yaml"
chmod 0600 "$root/etc/hbd/heartbeat.yaml"
is '' systemctl --quiet disable hbc
# The administrator has closed the one to the group, and opened the other to it.
is '' sh -c 'chown root:root /etc/hbc/secrets; chmod 00700 /etc/hbc/secrets'
is '' sh -c 'chown root:hbd /etc/hbd/secrets; chmod 0750 /etc/hbd/secrets'
rpm_in_root --nodeps -U --replacepkgs "${files[@]}"
is '# mine' tail -n 1 /etc/hbd/heartbeat.yaml
is '600 root:hbd' stat -c '%a %U:%G' /etc/hbd/heartbeat.yaml
is '700 root:root' stat -c '%a %U:%G' /etc/hbc/secrets
is '750 root:hbd' stat -c '%a %U:%G' /etc/hbd/secrets
is enabled systemctl is-enabled hbd
is disabled systemctl is-enabled hbc

echo '- erase: the configuration stays'
rpm_in_root -e hbd hbc
is '# mine' tail -n 1 /etc/hbd/heartbeat.yaml
for path in /usr/bin/hbd /usr/bin/hbc /usr/lib/systemd/system/hbd.service /usr/share/hbd /usr/share/doc/hbd \
    /etc/systemd/system/multi-user.target.wants/hbd.service; do
    [ ! -e "$root$path" ] && [ ! -L "$root$path" ] || wrong "$path is still there"
done

echo '- again'
rpm_in_root --nodeps -i "${files[@]}"
is '# mine' tail -n 1 /etc/hbd/heartbeat.yaml
echo fine
