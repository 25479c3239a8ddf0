#!/bin/bash
# An image of hbd, built and run: tests/packages/image.sh PLACE. With podman, which keeps all of it in PLACE.
set -euo pipefail
export LC_ALL=C.UTF-8
cd "$(dirname "$0")/../.."
place=$1
# crun wants the second version of cgroups and no other, where there are both; nobody else sees that.
if [ "${2-}" != inside ]; then
    exec unshare --mount "$0" "$place" inside
fi
if [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
    umount --recursive /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi

wrong() {
    echo "WRONG: $*" >&2
    [ ! -e "$place/log" ] || cat "$place/log" >&2
    exit 1
}

# Storage that needs no overlay in the kernel, and no isolation beyond what a test may have.
cat >"$place/storage.conf" <<END
[storage]
driver = "vfs"
graphroot = "$place/graph"
runroot = "$place/run"
END
cat >"$place/containers.conf" <<END
[containers]
cgroups = "disabled"
netns = "private"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
END
export CONTAINERS_STORAGE_CONF=$place/storage.conf CONTAINERS_CONF=$place/containers.conf BUILDAH_ISOLATION=chroot

packaging/image --profile dev --tag hbd:test >"$place/log" 2>&1 || wrong 'it cannot be built'
[ "$(podman image inspect -f '{{.Config.User}} {{.Config.Entrypoint}}' hbd:test)" = '9099:9099 [/usr/bin/hbd]' ] || wrong 'its user'
podman image inspect -f '{{.Config.Healthcheck}}' hbd:test | grep -q -- --alive || wrong 'it has no health check'
podman save hbd:test 2>"$place/log" | tar -xO --wildcards '*.tar' | tar -t -i 2>/dev/null | grep -qE '(^|/)bin/(sh|bash)$' &&
    wrong 'there is a shell in it'

# With limits that may be set without CAP_SYS_RESOURCE.
run() {
    podman run --network none --cgroups disabled --ulimit nofile=1024:1024 --ulimit nproc=1000:1000 "$@"
}
run --rm --no-healthcheck hbd:test check || wrong 'the example is not sound in it'
run -d --name one -v state:/var/lib/hbd hbd:test >"$place/log" 2>&1 || wrong 'it does not start'
for _ in $(seq 100); do
    if podman exec one /usr/bin/hbd status --alive 2>/dev/null; then break; fi
    read -rt 0.1 <> <(:) || true
done
podman healthcheck run one || wrong 'it is not healthy'
podman logs one 2>&1 | grep -q 'is ready: ' || wrong 'it says nothing'
podman stop -t 20 one >>"$place/log" 2>&1
[ "$(podman inspect -f '{{.State.ExitCode}}' one)" = 0 ] || wrong 'it does not stop by itself'
run --rm --no-healthcheck -v state:/var/lib/hbd --entrypoint /usr/bin/hbd hbd:test --version
[ -e "$(podman volume inspect -f '{{.Mountpoint}}' state)/heartbeat.redb" ] || wrong 'the volume has no state'
echo fine
