# shellcheck shell=bash disable=SC2154,SC2034
# Our own binaries, built on the host.

build_binaries() {
    [ -n "$build" ] || return 0
    # libclang without clang's own headers: gcc's stand in for them.
    BINDGEN_EXTRA_CLANG_ARGS=-I$(gcc -print-file-name=include)
    export BINDGEN_EXTRA_CLANG_ARGS CARGO_TARGET_DIR=$target
    cd "$repo" || exit
    interruptible cargo build --release --locked -p backdoor-experiments -p backdoor-transports \
        --features backdoor-experiments/verbs,backdoor-transports/verbs --bin backdoor --example verbs_check \
        || die "the build failed"
}

# The binaries that go into the image, one a line.
our_binaries() {
    local file
    for file in "$target/release/backdoor" "$target/release/examples/verbs_check"; do
        [ -x "$file" ] || die "there is no $file: run without --no-build"
        echo "$file"
    done
}
