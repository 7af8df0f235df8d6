# shellcheck shell=sh
# what: node, inspect, monitor and hooks as their user calls them, from one guest to the other
# limit: 60s

start_on_node agent "backdoor node --transport verbs --socket /run/agent.sock --key $OUT/key"
wait_for_line "$OUT/agent.log" "agent ready" || fail "the agent does not start"
over="--transport verbs --connect $NODE_CONTROL"

# Who has no key, or another one, is told so.
# shellcheck disable=SC2086
backdoor inspect $over --key "$OUT/none" && fail "an inspection without a key succeeds"
od -An -tx1 -N32 /dev/urandom | tr -d ' \n' >/tmp/wrong
echo >>/tmp/wrong
chmod 600 /tmp/wrong
# shellcheck disable=SC2086
backdoor inspect $over --key /tmp/wrong && fail "an inspection with the wrong key succeeds"

cp "$OUT/key" /tmp/key
chmod 600 /tmp/key
over="$over --key /tmp/key"
# shellcheck disable=SC2086
backdoor inspect $over >"$OUT/inspect.txt" || fail "inspect ended with status $?"
cat "$OUT/inspect.txt"
metric processors "$(grep -c 'os/cpu' "$OUT/inspect.txt")" entities "=2"
# shellcheck disable=SC2086
backdoor monitor $over --once --poll 5ms || fail "the monitor suspects somebody in a healthy node"

# Taken back while the monitor watches, and offered again.
# shellcheck disable=SC2086
backdoor monitor $over --poll 5ms --format json >"$OUT/monitor.json" 2>&1 &
monitor=$!
wait_for_line "$OUT/monitor.json" attached || fail "the monitor does not attach"
on_node backdoor hooks revoke progress --socket /run/agent.sock || fail "hooks revoke ended with status $?"
wait_for_line "$OUT/monitor.json" channel_lost || fail "the monitor does not notice that its memory was taken back"
# shellcheck disable=SC2086
backdoor inspect $over && fail "an inspection of revoked memory succeeds"
on_node backdoor hooks restore progress --socket /run/agent.sock || fail "hooks restore ended with status $?"
wait_for_line "$OUT/monitor.json" channel_restored || fail "the monitor does not get its memory back"
usleep 300000
kill -INT $monitor
wait $monitor
tail -n 3 "$OUT/monitor.json"
metric suspicions "$(grep -c '"event":"suspected"' "$OUT/monitor.json")" entities
