#!/usr/bin/env bash
# usage: docker.sh [engine] [image]
#   engine   on Debian as root: install Docker and bubblewrap, and start Docker's daemon unless one answers
#   image    build agentgolf-practice, unless it is there; BASE=python:3.11-slim builds on that image, and
#            without BASE the base is made by debootstrap, so that no registry is needed
set -euo pipefail
cd "$(dirname "$0")/.."
course=sandboxes/practice
image=agentgolf-practice
apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq)

start_engine() {
    if ! command -v bwrap >/dev/null; then
        "${apt[@]}" update >/dev/null
        "${apt[@]}" install -y bubblewrap >/dev/null
    fi
    if docker info >/dev/null 2>&1; then return; fi
    if ! command -v dockerd >/dev/null; then
        echo "installing Docker" >&2
        "${apt[@]}" update >/dev/null
        "${apt[@]}" install -y docker.io >/dev/null
        hash -r
    fi
    # A daemon that was killed leaves these behind, and the next one would wait for a dead containerd.
    pgrep -x dockerd >/dev/null || rm -f /var/run/docker.pid
    pgrep -x containerd >/dev/null || rm -f /run/docker/containerd/containerd.pid
    echo "starting dockerd" >&2
    setsid dockerd >/tmp/agentgolf-dockerd.log 2>&1 </dev/null &
    for _ in $(seq 60); do
        if docker info >/dev/null 2>&1; then return; fi
        sleep 1
    done
    echo "dockerd did not start; its last words:" >&2
    tail -n 5 /tmp/agentgolf-dockerd.log >&2
    exit 4
}

make_base() {
    if docker image inspect agentgolf-base >/dev/null 2>&1; then return; fi
    echo "making a base image with debootstrap" >&2
    command -v debootstrap >/dev/null || { "${apt[@]}" update >/dev/null; "${apt[@]}" install -y debootstrap >/dev/null; }
    debootstrap --variant=minbase --include=python3,python3-pip bookworm "$work/root" >"$work/debootstrap.log" 2>&1 ||
        { tail -n 5 "$work/debootstrap.log" >&2; exit 4; }
    tar -C "$work/root" -c . | docker import - agentgolf-base >/dev/null
}

build_image() {
    # The image is named by what it is made of, so that a changed Dockerfile is built again.
    tag=$image:$(cat "$course/Dockerfile" constraints.txt | sha256sum | cut -c1-12)
    if ! docker image inspect "$tag" >/dev/null 2>&1; then
        base=${BASE:-}
        mkdir -p "$work/context/wheels"
        if [ -z "$base" ]; then
            make_base
            base=agentgolf-base
            .venv/bin/pip download --quiet --disable-pip-version-check -c constraints.txt -d "$work/context/wheels" \
                torch numpy zstandard
        fi
        cp "$course/Dockerfile" "$work/context/"
        echo "building $image on $base" >&2
        docker build --quiet -t "$tag" --build-arg BASE="$base" "$work/context" >/dev/null
    fi
    docker tag "$tag" "$image"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for step in "$@"; do
    case $step in
        engine) start_engine ;;
        image) build_image ;;
        *) sed -n 2,6p "$0" >&2; exit 2 ;;
    esac
done
