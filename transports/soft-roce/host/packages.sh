# shellcheck shell=bash disable=SC2154,SC2034
# Debian packages: which are needed, which are missing, and installing those.

needed_packages=(
    gcc libc6-dev make cmake libclang1-14          # to build the verbs bindings
    libibverbs1 ibverbs-providers perftest         # verbs, and the yardstick for their speed
    qemu-system-x86 busybox-static cpio iproute2 xz-utils   # guests, and what is in them
)

install_packages() {
    command -v cargo >/dev/null || [ -z "$build" ] || die "needs Rust (cargo): https://rustup.rs"
    command -v apt-get >/dev/null || die "needs Debian 12 (there is no apt-get here)"
    local missing=() package
    for package in "${needed_packages[@]}"; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ -n "$install" ] || die "missing packages, and --no-install was given: ${missing[*]}"
    say "installing with apt-get: ${missing[*]}"
    as_root apt-get -q -q update
    # Recommended packages would bring a desktop along with QEMU.
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -q -y -o Dpkg::Use-Pty=0 install \
        --no-install-recommends "${missing[@]}" >"$out/logs/install.log" 2>&1 \
        || { tail -n 20 "$out/logs/install.log" >&2; die "apt-get could not install them; all of it is in logs/install.log"; }
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "needs to be root, or sudo, for: $*"
    fi
}
