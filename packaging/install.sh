#!/bin/sh
# Installs @NAME@ where there is no package for it, from the directory that this script is in:
#
#   ./install.sh            installs it, or this version over another one
#   ./install.sh --remove   takes it away again; configuration and state stay
#
# For systemd, OpenRC (Alpine, Gentoo) and procd (OpenWrt); with another init it installs all but a
# service. It needs a shell and the usual programs, those of BusyBox are enough.
set -eu
umask 022
name=@NAME@
config=@CONFIG@
cd "$(dirname "$0")"

complain() {
    echo "install.sh: $*" >&2
    exit 1
}

have() {
    command -v "$1" >/dev/null 2>&1
}

init_of_system() {
    if [ -d /run/systemd/system ]; then
        echo systemd
    elif [ -e /sbin/openrc-run ]; then
        echo openrc
    elif [ -e /etc/rc.common ]; then
        echo procd
    elif have systemctl; then
        echo systemd
    fi
}

service_file() {
    case $init in
        systemd) echo /etc/systemd/system/$name.service ;;
        openrc | procd) echo /etc/init.d/$name ;;
    esac
}

# What is installed, each as its path without the first slash. A router has little room: no manual there.
files() {
    if [ "$init" = procd ]; then
        find usr/bin usr/share/$name -type f
    else
        find usr -type f -o -type l
    fi
}

# put MODE FROM TO: whole or not at all, also over a program that runs.
put() {
    mkdir -p "$(dirname "$3")"
    cp -P "$2" "$3.new"
    [ -L "$3.new" ] || chmod "$1" "$3.new"
    mv -f "$3.new" "$3"
}

# The user and group as which it runs. OpenWrt has no program for it: there it runs as root.
add_user() {
    ! grep -q "^$name:" /etc/passwd || return 0
    if have useradd; then
        groupadd -r $name 2>/dev/null || true
        useradd -r -g $name -d /var/lib/$name -M -s /sbin/nologin -c Heartbeat $name
    elif have adduser && have addgroup; then
        addgroup -S $name 2>/dev/null || true
        adduser -S -D -H -h /var/lib/$name -s /sbin/nologin -G $name -g Heartbeat $name
    fi
}

# Made from the example where there is none, and the administrator's from then on.
make_configuration() {
    owner=root:root
    if grep -q "^$name:" /etc/group; then owner=root:$name; fi
    if [ ! -d /etc/$name/secrets ]; then
        mkdir -p /etc/$name/secrets
        chown $owner /etc/$name/secrets
        # A file here gets the group of the directory.
        chmod 2750 /etc/$name/secrets
    fi
    if [ ! -e /etc/$name/$config ] && [ ! -L /etc/$name/$config ]; then
        put 640 usr/share/$name/$config /etc/$name/$config
        chown $owner /etc/$name/$config
    fi
    [ $name = hbd ] || mkdir -p /etc/$name/metrics.d
}

# What runs is started again with the new program.
restart() {
    case $init in
        systemd)
            if [ -d /run/systemd/system ]; then
                systemctl daemon-reload
                systemctl try-restart $name
            fi
            ;;
        openrc) rc-service --ifstarted $name restart ;;
        procd) ! /etc/init.d/$name running || /etc/init.d/$name restart ;;
    esac
}

tell_what_next() {
    echo "$(usr/bin/$name --version | head -n 1) is installed. Its configuration: /etc/$name/$config"
    case $init in
        systemd) echo "Then: systemctl enable --now $name" ;;
        openrc) echo "Then: rc-update add $name && rc-service $name start" ;;
        procd) echo "Then: /etc/init.d/$name enable && /etc/init.d/$name start" ;;
        *) echo "No init that is known here: $name run, as user $name, stays in the foreground." ;;
    esac
}

install_all() {
    usr/bin/$name --version >/dev/null || complain "$name does not run here: is it for this machine?"
    # What was installed here before, and what is replaced without a word.
    if have dpkg-query && dpkg-query -S /usr/bin/$name >/dev/null 2>&1; then
        complain "a Debian package of $name is installed: apt-get remove $name"
    elif have rpm && rpm -q $name >/dev/null 2>&1; then
        complain "an RPM package of $name is installed: rpm -e $name"
    fi
    first=yes
    [ ! -e /usr/bin/$name ] || first=
    add_user
    files | while read -r file; do
        mode=644
        [ ! -x "$file" ] || mode=755
        put $mode "$file" "/$file"
    done
    make_configuration
    case $init in
        systemd) put 644 init/systemd "$(service_file)" ;;
        openrc | procd) put 755 init/$init "$(service_file)" ;;
    esac
    [ -n "$first" ] || restart
    [ -z "$first" ] || tell_what_next
}

stop() {
    case $init in
        systemd)
            if [ -d /run/systemd/system ]; then systemctl stop $name; fi
            systemctl disable $name
            ;;
        openrc)
            rc-service --ifstarted $name stop
            rc-update delete $name default
            ;;
        procd)
            /etc/init.d/$name stop
            /etc/init.d/$name disable
            ;;
    esac
}

remove_all() {
    stop >/dev/null 2>&1 || true
    files | while read -r file; do rm -f "/$file"; done
    file=$(service_file)
    [ -z "$file" ] || rm -f "$file"
    rmdir /usr/share/$name /usr/share/doc/$name/examples /usr/share/doc/$name 2>/dev/null || true
    [ ! -d /run/systemd/system ] || systemctl daemon-reload
    echo "$name is removed. What stays: /etc/$name, /var/lib/$name, and the user $name."
}

[ "$(id -u)" = 0 ] || complain "only root can do that"
init=$(init_of_system)
case ${1-} in
    '') install_all ;;
    --remove) remove_all ;;
    *) complain "there is no option $1" ;;
esac
