#!/usr/bin/env bash
# charliecloud 0.31: ch-run makes no mount point that an image lacks.
#
# Guessed: `ch-run --bind /data/run:/data/run IMAGE` makes /data/run inside, as docker, podman and apptainer do.
# True: the image is shown read-only, and ch-run ends with an error unless the folder is in it. 0.45 does the same, and
#   has --write-fake, with which it makes one. That is why ours gives --write-fake where a mount's target is missing and
#   ch-run knows it; the documents say which folder to make for older ones.
#
# Needs Debian 12 and a network; uses a temporary folder. Fails when the behaviour changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
# apt downloads as a user of its own, who may not enter a private folder; the root user may.
for package in charliecloud-runtime=0.31-1 libsquashfuse0=0.1.105-1 libfuse3-3=3.14.0-4 liblzo2-2=2.10-2 \
    busybox-static=1:1.35.0-4+deb12u1+b1; do
    apt-get -qq -o APT::Sandbox::User=root download "$package"
done
for package in ./*.deb; do
    dpkg-deb --extract "$package" programs
done
mkdir -p run image/{bin,dev,etc,home,mnt,proc,sys,tmp,usr/bin}
touch image/etc/{passwd,group,hosts,resolv.conf}
cp programs/bin/busybox image/bin/sh

start() {
    USER=$(id -un) LD_LIBRARY_PATH=$(echo programs/usr/lib/*-linux-gnu) programs/usr/bin/ch-run \
        --bind "$folder/run:$1" image -- /bin/sh -c 'echo started' 2>&1 || true
}
echo "target in the image: $(start /mnt)" | tee said
echo "target missing: $(start /data/run)" | sed "s|$folder|…|" | tee -a said
for line in 'in the image: started' 'missing: ch-run' 'Read-only file system'; do
    grep -q -F -- "$line" said || { echo "changed"; exit 1; }
done
echo "as it was: it ends where the folder is missing"

# Seen on 2026-11-30:
# target in the image: started
# target missing: ch-run[704]: error: can't mkdir: …/image/data: Read-only file system (ch_misc.c:409 30)
# as it was: it ends where the folder is missing
