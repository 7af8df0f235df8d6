# shellcheck shell=bash disable=SC2154,SC2034
# Debian packages: which are needed, which are missing, and installing those.

build_packages=(gcc libc6-dev make cmake libclang1-14)     # for the verbs bindings
guest_packages=(
    libibverbs1 ibverbs-providers perftest         # verbs, and the yardstick for their speed
    qemu-system-x86 busybox-static cpio iproute2 xz-utils   # guests, and what is in them
)

# Those that are not installed, one a line.
missing_of() {
    local package
    for package; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || echo "$package"
    done
}

# All that is missing can be installed, or this is the end.
need_packages() {
    command -v cargo >/dev/null || [ -z "$build" ] || die "needs Rust (cargo): https://rustup.rs"
    command -v apt-get >/dev/null || die "needs Debian 12 (there is no apt-get here)"
    mapfile -t missing < <(missing_of "${build_packages[@]}" "${guest_packages[@]}")
    [ ${#missing[@]} -gt 0 ] || return 0
    local by_hand="apt-get update && apt-get install --no-install-recommends ${missing[*]}"
    [ -n "$install" ] || die "packages are missing, and --no-install was given. As root: $by_hand"
    may_be_root || die "packages are missing, and without root or sudo they can't be installed from here. As root: $by_hand"
}

# Downloads all that is missing before it installs the first of it, which is what cargo needs.
install_tools() {
    local missing
    need_packages
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing with apt-get: ${missing[*]}"
    : >"$out/logs/install.log"
    begin_early_build
    as_root apt-get -q -q update || die "apt-get update failed"
    install_missing --download-only "${missing[@]}"
    install_packages "${build_packages[@]}"
    stop_early_build
}

install_packages() {
    local missing
    mapfile -t missing < <(missing_of "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    say "unpacking ${missing[*]}, which is not interrupted"
    unbroken install_missing "${missing[@]}"
}

# Recommended packages would bring a desktop along with QEMU.
install_missing() {
    as_root "${session[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -q -y -o Dpkg::Use-Pty=0 install --no-install-recommends "$@" >>"$out/logs/install.log" 2>&1 \
        || { tail -n 20 "$out/logs/install.log" >&2; die "apt-get could not install them; all of it is in $out/logs/install.log"; }
}

# What Ctrl-C must not reach runs in a session of its own: dpkg, interrupted, would leave packages half installed, and
# apt-get would refuse to go on until somebody mends them. Signals to this script wait until it has ended.
session=()
unbroken() {
    local session=(sh -c 'trap "" INT HUP TERM; setsid --wait "$@"' sh)
    "$@"
}

may_be_root() {
    [ "$(id -u)" = 0 ] || command -v sudo >/dev/null
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
