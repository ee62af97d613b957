#!/bin/sh
# Install the Debian packages that a job needs and that are missing; nothing to install is nothing done.
#
#     integration/setup.sh build|demo|test|lab|check...
set -eu

packages=
for job in "$@"; do
    case $job in
        build) packages="$packages gcc libc6-dev make python3-dev python3-venv libseccomp2 python3-seccomp" ;;
        demo) packages="$packages busybox-static" ;;
        lab) packages="$packages qemu-system-x86 mmdebstrap e2fsprogs cpio kmod busybox-static util-linux" ;;
        test) packages="$packages busybox-static iproute2 mount procps runc crun podman containerd containernetworking-plugins catatonit util-linux netavark iptables uidmap slirp4netns docker.io strace" ;;
        check) packages="$packages clang clang-format clang-tidy libclang-rt-14-dev gcc-aarch64-linux-gnu libc6-dev-arm64-cross" ;;
        *) echo "setup.sh: unknown job '$job'" >&2; exit 2 ;;
    esac
done

missing=
for package in $packages; do
    case $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) in
        *' installed') ;;
        *) case " $missing " in *" $package "*) ;; *) missing="$missing $package" ;; esac ;;
    esac
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "setup.sh: this is not Debian; install what these packages hold:$missing" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "setup.sh: as root: apt-get install$missing" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
echo "setup.sh: installing$missing"
# The lists of a fresh machine are missing or old; then it is said once more what went wrong.
apt-get update -qq || true
# shellcheck disable=SC2086
exec apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 $missing >/dev/null
