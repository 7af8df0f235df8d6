# shellcheck shell=bash disable=SC2154,SC2034
# Our own binaries, built on the host.

build_binaries() {
    [ -n "$build" ] || return 0
    # libclang without clang's own headers: gcc's stand in for them.
    BINDGEN_EXTRA_CLANG_ARGS=-I$(gcc -print-file-name=include)
    export BINDGEN_EXTRA_CLANG_ARGS CARGO_TARGET_DIR=$target
    cd "$repo" || exit
    if grep -q '^verbs *=' experiments/Cargo.toml; then
        interruptible cargo build --release --locked --features verbs || die "the build failed"
        interruptible cargo build --release --locked -p backdoor-transports --features verbs --examples \
            || die "the build of the examples failed"
    else
        interruptible cargo build --release --locked || die "the build failed"
    fi
}

# The binaries that go into the image, one a line; those that are not there are left out, and a case that needs one says
# so.
our_binaries() {
    local file
    for file in "$target/release/backdoor" "$target"/release/examples/verbs_*; do
        # Cargo puts copies with a hash in their names, and lists of dependencies, beside the examples.
        case ${file##*/} in *-* | *.d) continue ;; esac
        [ ! -x "$file" ] || echo "$file"
    done
}
