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
    # Tests that need a device, as a program. Its name has a hash in it, which only cargo knows.
    interruptible sh -c 'cargo test --release --locked -p backdoor-host --features backdoor-host/verbs --test verbs \
        --no-run --message-format=json >"$1"' sh "$scratch/tests.json" || die "the build of the tests failed"
    cp "$(sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' "$scratch/tests.json" | tail -n 1)" "$target/release/host_tests"
}

# The binaries that go into the image, one a line.
our_binaries() {
    local file
    for file in "$target/release/backdoor" "$target/release/examples/verbs_check" \
        "$target/release/host_tests"; do
        [ -x "$file" ] || die "there is no $file: run without --no-build"
        echo "$file"
    done
}
