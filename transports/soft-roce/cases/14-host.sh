# shellcheck shell=sh
# what: an agent and its monitor over one guest's own card: rights, revocation, restart, keys
# limit: 40s

host_tests --ignored --test-threads 1 >"$OUT/tests.txt" 2>&1
status=$?
cat "$OUT/tests.txt"
metric passed "$(sed -n 's/^test result: .* \([0-9]*\) passed.*/\1/p' "$OUT/tests.txt")" tests ">=4"
[ $status = 0 ] || fail "a test failed"
