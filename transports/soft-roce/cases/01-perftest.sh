# shellcheck shell=sh
# what: perftest's READs of 8 bytes between the two guests: latency and rate, the yardsticks for ours; no bounds
# limit: 40s

# perftest TOOL OPTION…: its server on the node, its client here; the client's output goes to $OUT/TOOL.txt.
perftest() {
    tool=$1
    shift
    start_on_node "$tool" "$tool -d rxe0 -x $(on_node gid-index) -F $*" || fail "$tool did not start on the node"
    on_node 'until netstat -ltn | grep -q :18515; do usleep 20000; done' || fail "$tool does not listen on the node"
    "$tool" -d rxe0 -x "$(gid-index)" -F "$@" "$NODE_CONTROL" >"$OUT/$tool.txt" 2>&1
    status=$?
    cat "$OUT/$tool.txt"
    [ $status = 0 ] || fail "$tool ended with status $status"
}

# figure TOOL COLUMN: of the line of numbers in its output.
figure() {
    awk -v column="$2" '$1 == 8 && NF > 4 { print $column }' "$OUT/$1.txt"
}

perftest ib_read_lat -s 8 -n 1000
metric read_latency_typical "$(figure ib_read_lat 5)" us
metric read_latency_99 "$(figure ib_read_lat 8)" us
metric path_mtu "$(sed -n 's/^ *Mtu *: *\([0-9]*\).*/\1/p' "$OUT/ib_read_lat.txt")" bytes "=1024"

perftest ib_read_bw -s 8 -n 2000
metric read_rate "$(figure ib_read_bw 5)" Mops
