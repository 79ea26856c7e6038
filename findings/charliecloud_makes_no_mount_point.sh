#!/bin/bash
# ch-run shows an image read-only, and so makes no target for a bind mount; nor does it start
# without USER.
#
# Guess: `ch-run --bind /data/run:/data/run IMAGE` makes /data/run inside, as docker, podman and
#        apptainer do, and whoever calls it needs no variable set.
# Truth: it ends with "can't mkdir: …: Read-only file system" unless the image has the folder, and
#        with "$USER not set" (charliecloud 0.31). 0.45 says the first too, and has --write-fake.
#
# Needs Debian 12 as root: installs charliecloud (0.31) and busybox-static.
set -eu
export DEBIAN_FRONTEND=noninteractive
if ! command -v ch-run > /dev/null || [ ! -x /bin/busybox ]; then
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends charliecloud busybox-static > /dev/null
fi
folder=$(mktemp -d -p /var/tmp)
trap 'rm -rf "$folder"' EXIT
image=$folder/image
mkdir -p "$folder/run" "$image/bin" "$image/dev" "$image/etc" "$image/mnt" "$image/proc" \
    "$image/sys" "$image/tmp" "$image/usr/bin" "$image/home"
touch "$image/etc/passwd" "$image/etc/group" "$image/etc/hosts" "$image/etc/resolv.conf"
cp /bin/busybox "$image/bin/sh"
start() { ch-run --bind "$folder/run:$1" "$image" -- /bin/sh -c 'echo started' 2>&1 || true; }

without_user=$(unset USER; start /mnt)
export USER=root
there=$(start /mnt)
missing=$(start /data/run)
printf '%s\n' "no USER: $without_user" "target in the image: $there" "target missing: $missing"
if [[ $without_user != *'USER not set'* || $there != *started* || $missing != *'Read-only'* ]]; then
    echo "CHANGED"
    exit 1
fi

# Seen on 2026-11-30 (charliecloud 0.31):
# no USER: ch-run[31972]: error: $USER not set (ch-run.c:122)
# target in the image: started
# target missing: ch-run[31976]: error: can't mkdir: …/image/data: Read-only file system (ch_misc.c:409 30)
