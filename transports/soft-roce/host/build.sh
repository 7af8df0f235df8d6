# shellcheck shell=bash disable=SC2154,SC2034
# Our own binaries, built on the host.

# One command for all of them, or crates would be compiled again for every set of features that is asked for. Nobody
# looks at figures in a guest, so what renders PNGs is left out.
begin_build() {
    [ -n "$build" ] || return 0
    # libclang without clang's own headers: gcc's stand in for them.
    BINDGEN_EXTRA_CLANG_ARGS=-I$(gcc -print-file-name=include)
    export BINDGEN_EXTRA_CLANG_ARGS CARGO_TARGET_DIR=$target
    cd "$repo" || exit
    begin sh -c 'exec cargo build --release --locked -p backdoor-experiments -p backdoor-transports -p backdoor-host \
        --no-default-features --features backdoor-experiments/verbs,backdoor-transports/verbs,backdoor-host/verbs \
        --bin backdoor --example verbs_check --test verbs_node --message-format=json-render-diagnostics >"$1"' \
        sh "$scratch/build.json"
}

finish_build() {
    [ -n "$build" ] || return 0
    finish || die "the build failed"
    # The tests that need a device are a program, too. Its name has a hash in it, which only cargo knows.
    cp "$(sed -n 's/.*"name":"verbs_node".*"executable":"\([^"]*\)".*/\1/p' "$scratch/build.json" | tail -n 1)" \
        "$target/release/host_tests"
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
