#!/usr/bin/env bash
# Builds the image: docker/build.sh [TAG]. docs/docker.md lists the variables that it reads.
set -euo pipefail
cd "$(dirname "$0")/.."

tag=${1:-minimind}
options=(--file docker/Dockerfile --tag "$tag")
network=${BUILD_NETWORK:-}

# The Dockerfile needs BuildKit, which a client older than 23 has built in and a newer one has
# in its plugin buildx; not every client on a path has it.
docker=
while read -r candidate; do
    major=$("$candidate" --version | sed -E 's/^Docker version ([0-9]+).*/\1/')
    if [ "$major" -lt 23 ] || "$candidate" buildx version > /dev/null 2>&1; then
        docker=$candidate
        break
    fi
done < <(type -ap docker)
if [ -z "$docker" ]; then
    echo "docker/build.sh: no docker client with BuildKit on the path; install docker-buildx" >&2
    exit 2
fi

# A folder of wheels is of this machine: the build sees it over the loopback interface. Its
# address goes in as a secret, since a build argument with another port would void the cache.
if [ -d "${PIP_FIND_LINKS:-}" ]; then
    served=$(mktemp -d)
    python3 -u -m http.server --bind 127.0.0.1 --directory "$PIP_FIND_LINKS" 0 > "$served/log" 2> /dev/null &
    server=$!
    trap 'kill "$server"; rm -r "$served"' EXIT
    until grep -o 'http://[^)]*' "$served/log" > "$served/address"; do
        kill -0 "$server"
        sleep 0.1
    done
    options+=(--secret "id=find_links,src=$served/address")
    unset PIP_FIND_LINKS
    network=host
fi

for name in BASE_IMAGE TORCH_VARIANT PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS \
    PIP_TRUSTED_HOST HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy; do
    # Named without a value: docker takes it from the environment.
    if [ -n "${!name:-}" ]; then options+=(--build-arg "$name"); fi
done
if [ -n "${CA_CERT:-}" ]; then options+=(--secret "id=ca,src=$CA_CERT"); fi
if [ -n "${PIP_CONF:-}" ]; then options+=(--secret "id=pip_conf,src=$PIP_CONF"); fi
if [ -n "$network" ]; then options+=(--network "$network"); fi

version=${VERSION:-$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)}
revision=${REVISION:-$(git describe --always --dirty --abbrev=40 --exclude='*' 2> /dev/null || echo unknown)}
options+=(--build-arg "VERSION=$version" --build-arg "REVISION=$revision")

DOCKER_BUILDKIT=1 BUILDKIT_PROGRESS=plain "$docker" build "${options[@]}" .
