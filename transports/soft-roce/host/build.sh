# shellcheck shell=bash disable=SC2154,SC2034
# Our own binaries, built on the host.

begin_build() {
    [ -n "$build" ] || return 0
    begin_cargo "$scratch/build.json"
}

# While the packages are installed that the verbs bindings need: all crates that don't depend on those. The others fail
# here, and if they fail again in the build proper, that says why.
begin_early_build() {
    [ -n "$build" ] || return 0
    begin_cargo /dev/null --keep-going 2>"$out/logs/early-build.log"
}

stop_early_build() {
    [ -n "$build" ] || return 0
    stop_running
}

# begin_cargo FILE [OPTION…]: one command for all programs, or crates would be compiled again for every set of features
# that is asked for. Guests run no studies, so these are left out.
begin_cargo() {
    # libclang without clang's own headers: gcc's stand in for them.
    BINDGEN_EXTRA_CLANG_ARGS=-I$(gcc -print-file-name=include 2>/dev/null || true)
    export BINDGEN_EXTRA_CLANG_ARGS CARGO_TARGET_DIR=$target
    cd "$repo" || exit
    begin sh -c 'messages=$1; shift
        exec cargo build --profile guests --locked -p backdoor-experiments -p backdoor-transports -p backdoor-host \
        --no-default-features --features backdoor-experiments/verbs,backdoor-transports/verbs,backdoor-host/verbs \
        --bin backdoor --example verbs_check --test verbs_node --message-format=json-render-diagnostics "$@" >"$messages"' \
        sh "$@"
}

finish_build() {
    [ -n "$build" ] || return 0
    finish || die "the build failed"
    # The tests that need a device are a program, too. Its name has a hash in it, which only cargo knows.
    cp "$(sed -n 's/.*"name":"verbs_node".*"executable":"\([^"]*\)".*/\1/p' "$scratch/build.json" | tail -n 1)" \
        "$target/guests/host_tests"
}

# The binaries that go into the image, one a line.
our_binaries() {
    local file
    for file in "$target/guests/backdoor" "$target/guests/examples/verbs_check" \
        "$target/guests/host_tests"; do
        [ -x "$file" ] || die "there is no $file: run without --no-build"
        echo "$file"
    done
}
