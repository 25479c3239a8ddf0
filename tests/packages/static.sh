#!/bin/bash
# The life of a tarball where there is BusyBox and nothing else, as on Alpine and OpenWrt:
# tests/packages/static.sh PLACE TARBALLS. Starts itself again in network and processes of its own.
set -euo pipefail
export LC_ALL=C.UTF-8
place=$1 tarballs=$2
if [ "${3-}" != inside ]; then
    exec unshare --mount --pid --fork --net --mount-proc "$0" "$place" "$tarballs" inside
fi
ip link set lo up
busybox=$(command -v busybox)
# On Debian that of busybox-static is /bin/busybox, that of busybox needs the C library.
! ldd "$busybox" >/dev/null 2>&1 || { echo "$busybox is not static: install busybox-static" >&2; exit 1; }

wrong() {
    echo "WRONG: $*" >&2
    exit 1
}

# A system with this init, and what it calls of it: new_root NAME
new_root() {
    root=$place/$1
    mkdir -p "$root"/{bin,sbin,usr/bin,usr/sbin,etc/init.d,etc/ssl/certs,proc,dev,tmp,var/lib,run}
    cp "$busybox" "$root/bin/busybox"
    chroot "$root" /bin/busybox --install -s
    cp -a /dev/null "$root/dev/null"
    mount -t proc proc "$root/proc"
    echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
    echo 'root:x:0:' >"$root/etc/group"
    printf '127.0.0.1 localhost byhosts.test\n' >"$root/etc/hosts"
    echo 'nameserver 127.0.0.1' >"$root/etc/resolv.conf"
    # As on a desktop. Of these, files and dns are in the program itself.
    echo 'hosts: mymachines resolve [!UNAVAIL=return] files mdns4_minimal [NOTFOUND=return] dns' \
        >"$root/etc/nsswitch.conf"
    case $1 in
        openrc) : >"$root/sbin/openrc-run" && log_calls sbin/rc-service && give_adduser ;;
        procd) log_calls etc/rc.common ;;
    esac
    for name in hbd hbc; do
        tar -C "$root/tmp" -xzf "$tarballs"/$name-*-linux-*.tar.gz
    done
}

# Alpine's BusyBox has these two, Debian's has not: with the options of Alpine's.
give_adduser() {
    cat >"$root/usr/sbin/addgroup" <<'END'
#!/bin/sh
[ "$1" = -S ] && echo "$2:x:$((100 + $(wc -l </etc/group))):" >>/etc/group
END
    cat >"$root/usr/sbin/adduser" <<'END'
#!/bin/sh
while getopts SDHh:s:G:g: option; do
    case $option in h) home=$OPTARG ;; s) shell=$OPTARG ;; G) group=$OPTARG ;; esac
done
shift $((OPTIND - 1))
id=$(grep "^$group:" /etc/group | cut -d: -f3)
echo "$1:x:$id:$id::$home:$shell" >>/etc/passwd
END
    chmod 755 "$root"/usr/sbin/add*
}

log_calls() {
    printf '#!/bin/sh\necho "$0 $*" >>/calls\n' >"$root/$1"
    chmod 755 "$root/$1"
}

# is EXPECTED COMMAND ... : in the root.
is() {
    local expected=$1 found
    shift
    found=$(chroot "$root" env PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@" 2>&1) || true
    [ "$found" = "$expected" ] || wrong "$*: \"$found\", and not \"$expected\""
}

# succeeds COMMAND ... : in the root.
succeeds() {
    local said
    said=$(chroot "$root" env PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@" 2>&1) || wrong "$*: $said"
}

until_it() {
    for _ in $(seq 100); do
        if "$@" >/dev/null 2>&1; then return; fi
        read -rt 0.1 <> <(:) || true
    done
    wrong "still not: $*"
}

install_both() {
    for name in hbd hbc; do
        succeeds sh -c "/tmp/$name-*/install.sh"
    done
}

# Answers every question for an address with 127.0.0.1, and those for IPv6 with none.
answer_names() {
    python3 - <<'END'
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", 53))
while True:
    q, who = s.recvfrom(512)
    end = q.index(0, 12) + 5
    a = q[end - 4:end - 2] == b"\0\1"
    head = q[:2] + b"\x81\x80\0\1" + (b"\0\1" if a else b"\0\0") + b"\0\0\0\0"
    s.sendto(head + q[12:end] + (b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\1" if a else b""), who)
END
}

for file in hbd hbc; do
    program=$place/$file
    tar -xzOf "$tarballs"/$file-*.tar.gz --wildcards "*/usr/bin/$file" >"$program"
    ! objdump -p "$program" | grep -q NEEDED || wrong "$file is not static"
done

echo '- OpenRC: install'
new_root openrc
install_both
is '640 root:hbd' stat -c '%a %U:%G' /etc/hbd/heartbeat.yaml
is '640 root:hbc' stat -c '%a %U:%G' /etc/hbc/hbc.yaml
is '2750 root:hbd' stat -c '%a %U:%G' /etc/hbd/secrets
is '755 root:root' stat -c '%a %U:%G' /etc/init.d/hbd
is '' cmp /etc/hbd/heartbeat.yaml /usr/share/doc/hbd/examples/heartbeat.yaml
is '' sh -n /etc/init.d/hbc

echo '- it runs as its own user; names are found in /etc/hosts and in the DNS'
answer_names &
install -d -o "$(chroot "$root" id -u hbd)" "$root/var/lib/hbd"
chroot "$root" /bin/su -s /bin/sh hbd -c 'HOME=/var/lib/hbd exec /usr/bin/hbd run' 2>"$place/log" &
until_it chroot "$root" /usr/bin/hbd status --alive
for server in 127.0.0.1 localhost byhosts.test bydns.test; do
    is '' sh -c "hbc send --server $server --host web1 --wait 10s >/dev/null"
done
is 1 sh -c 'hbd status --all --json | grep -c web1'

echo '- the certificate authorities of the system are believed'
certificate=(openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2)
"${certificate[@]}" -subj /CN=authority -keyout "$place/authority.key" -out "$place/authority.pem" 2>/dev/null
"${certificate[@]}" -subj /CN=byhosts.test -CA "$place/authority.pem" -CAkey "$place/authority.key" \
    -addext subjectAltName=DNS:byhosts.test -addext basicConstraints=critical,CA:FALSE \
    -keyout "$root/etc/hbd/key.pem" -out "$root/etc/hbd/cert.pem" 2>/dev/null
chmod 644 "$root/etc/hbd/key.pem"
printf 'state_dir: /tmp\nreceiver: {port: 9443, tls: {certificate_file: cert.pem, key_file: key.pem}}\nheartbeat: {port: 9443}\n' \
    >"$root/etc/hbd/tls.yaml"
chroot "$root" /usr/bin/hbd run --config /etc/hbd/tls.yaml 2>"$place/log-tls" &
until_it chroot "$root" /usr/bin/hbd status --alive --config /etc/hbd/tls.yaml
is 3 sh -c 'hbd status --alive --url https://byhosts.test:9443 2>/dev/null; echo $?'
cp "$place/authority.pem" "$root/etc/ssl/certs/ca-certificates.crt"
is 0 sh -c 'hbd status --alive --url https://byhosts.test:9443; echo $?'

echo '- again, over what runs; and away'
echo '# mine' >>"$root/etc/hbd/heartbeat.yaml"
install_both
is '# mine' tail -n 1 /etc/hbd/heartbeat.yaml
is '/sbin/rc-service --ifstarted hbd restart
/sbin/rc-service --ifstarted hbc restart' cat /calls
succeeds sh -c '/tmp/hbd-*/install.sh --remove'
is '# mine' tail -n 1 /etc/hbd/heartbeat.yaml
is /etc/hbd find /etc /usr -name '*hbd*' -o -name heartbeat.yaml.5.gz

echo '- procd: without users, without manuals'
new_root procd
install_both
is '640 root:root' stat -c '%a %U:%G' /etc/hbc/hbc.yaml
is '' sh -c 'find /usr/share/man /usr/share/doc 2>/dev/null'
is '' sh -n /etc/init.d/hbd
install_both
head -n 1 "$root/calls" | grep -qx '/etc/rc.common /etc/init.d/hbd running' || wrong "$(cat "$root/calls")"
succeeds sh -c '/tmp/hbc-*/install.sh --remove'
is /etc/hbc find /etc /usr -name '*hbc'
kill $(jobs -p) 2>/dev/null || true
echo fine
