#!/bin/sh
# Installs the Debian packages that building and testing Tern takes. Says nothing when all are there.
set -eu

packages='build-essential clang libclang-rt-14-dev libomp-14-dev cmake ninja-build pkg-config libcmocka-dev
libjansson-dev zlib1g-dev liblzma-dev libdnnl-dev libpng-dev libjpeg-dev libcurl4-openssl-dev dataset-fashion-mnist clang-format'
# The ARM build and its emulator, from the machines that do not run ARM themselves.
if [ "$(uname -m)" = x86_64 ]; then
    packages="$packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross libgomp1-arm64-cross qemu-user"
fi

if ! command -v dpkg-query > /dev/null || ! command -v apt-get > /dev/null; then
    echo "setup: not a Debian system. Tern needs what these packages of Debian 12 hold:" >&2
    echo $packages >&2
    # Whoever has brought the essentials along by other means may go on.
    for tool in cc clang cmake ninja pkg-config; do
        command -v $tool > /dev/null || { echo "setup: $tool is missing" >&2; exit 1; }
    done
    exit 0
fi

missing=
for package in $packages; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null || true)
    case $status in
    installed*) ;;
    *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo > /dev/null; then
    as_root=sudo
else
    echo "setup: these packages are missing, and installing them takes root or sudo:$missing" >&2
    exit 1
fi
echo "setup: installing$missing"
$as_root apt-get update -q &&
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing || {
    echo "setup: apt-get could not install$missing" >&2
    exit 1
}
