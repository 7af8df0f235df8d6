# shellcheck shell=sh
# what: a client's session goes on in the other guest: its State Box comes by RDMA READ, its claim by compare-and-swap
# limit: 90s

# Clients' traffic takes the other cable, for that one is cut to fence the node. What its kernel had acknowledged and its
# service had not read, the mirror knows.
addresses='10.0.0.2/24 10.0.0.10/32'
for address in $addresses; do
    on_node ip address add "$address" dev control || fail "the node did not take the address $address"
done
backdoor live failover --on "$STAGE" --through control --client keep-alive --mirror --failure sigstop --size 4MB \
    --runs 1 --deadline 500ms --poll 5ms --format csv --quiet >"$OUT/failover.csv"
status=$?
cat "$OUT/failover.csv"
for address in $addresses; do
    on_node ip address del "$address" dev control
done
[ $status = 0 ] || fail "live failover ended with status $status"
metric runs "$(rows "$OUT/failover.csv" 1)" runs "=1"
metric moved "$(median "$OUT/failover.csv" moved)" sessions "=1.0"
metric sha256_ok "$(rows "$OUT/failover.csv" 'v["sha256_ok"] == "true"')" runs "=1"
metric resets "$(median "$OUT/failover.csv" client_resets)" connections "=0"
metric detection "$(median "$OUT/failover.csv" detection_ms)" ms
metric first_byte "$(median "$OUT/failover.csv" first_byte_ms)" ms
