# shellcheck shell=sh
# Helpers for cases. A case runs in the monitor guest, with CASE (its name) and OUT (a directory that is on the host).

NODE=10.77.0.1          # data card of the node, for RDMA; nothing else uses it
MONITOR=10.77.0.2
NODE_CONTROL=10.78.0.1  # control card of the node: for commands and connection set-up
STAGE=$NODE:7170        # where the node plays its part in `backdoor live detect`
export NODE MONITOR NODE_CONTROL STAGE

# metric NAME VALUE UNIT [BOUND]: one row of the results. BOUND is <=N, >=N, <N, >N or =N; a value that breaks it, or is no
# number, fails the case, which goes on.
metric() {
    awk -v OFS=, -v name="$1" -v value="$2" -v unit="$3" -v bound="${4:-}" 'BEGIN {
        number = "^-?[0-9]+([.][0-9]+)?([eE][-+]?[0-9]+)?$"
        ok = value ~ number ? (bound == "" ? "" : "no") : "no"
        if (bound != "" && value ~ number) {
            limit = bound; sub("^[<>]?=?", "", limit)
            relation = substr(bound, 1, length(bound) - length(limit))
            if (limit !~ number || relation == "") ok = "no"
            else if (relation == "<=" && value + 0 <= limit + 0) ok = "yes"
            else if (relation == ">=" && value + 0 >= limit + 0) ok = "yes"
            else if (relation == "<" && value + 0 < limit + 0) ok = "yes"
            else if (relation == ">" && value + 0 > limit + 0) ok = "yes"
            else if (relation == "=" && value + 0 == limit + 0) ok = "yes"
        }
        gsub(/[,"\n]/, " ", value)
        print name, value, unit, bound, ok
    }' >>"$OUT/metrics.csv"
}

# measures COMMAND…: runs a program that prints lines `name value unit`, and makes a metric of each; those of the names in
# BOUNDS (`name:bound name:bound …`) with that bound. A program that fails, fails the case.
measures() {
    "$@" >"$OUT/measures.txt"
    _status=$?
    cat "$OUT/measures.txt"
    while read -r _name _value _unit; do
        case $_value in *[!0-9.eE+-]* | '') continue ;; esac
        _bound=''
        for _pair in ${BOUNDS:-}; do
            [ "${_pair%%:*}" != "$_name" ] || _bound=${_pair#*:}
        done
        metric "$_name" "$_value" "$_unit" "$_bound"
    done <"$OUT/measures.txt"
    [ $_status = 0 ] || fail "$1 ended with status $_status"
}

# rows FILE CONDITION: how many rows of a CSV file with a header meet a condition of awk, in which v["name"] is a column.
rows() {
    awk -F, "NR == 1 { for (i = 1; i <= NF; i++) name[i] = \$i; next }
             { for (i = 1; i <= NF; i++) v[name[i]] = \$i; if ($2) count++ }
             END { print count + 0 }" "$1"
}

# median FILE COLUMN [CONDITION]: of the rows of a CSV file that meet the condition.
median() {
    awk -F, "NR == 1 { for (i = 1; i <= NF; i++) name[i] = \$i; next }
             { for (i = 1; i <= NF; i++) v[name[i]] = \$i; if (${3:-1}) print v[\"$2\"] }" "$1" \
        | sort -n | awk '{ value[NR] = $1 } END { if (NR) printf "%.1f\n", value[int((NR + 1) / 2)] }'
}

# fail WHY: the case is over, and failed.
fail() {
    echo "FAILED: $*"
    echo "failure,$(printf '%s' "$*" | tr ',"\n' '   '),,,no" >>"$OUT/metrics.csv"
    exit 1
}

milliseconds() {
    sed 's/\.\([0-9]*\) .*/\10/' /proc/uptime
}

# on_node COMMAND…: runs it in the node's shell, as ssh would: output on standard output, and its exit status; 124 when it
# ran longer than ON_NODE_LIMIT seconds (10), 255 when the node did not answer.
on_node() {
    _limit=${ON_NODE_LIMIT:-10}
    _answer=$(printf '%s\n%s' "$_limit" "$*" | timeout $((_limit + 2)) nc -w 2 $NODE_CONTROL 700 2>/dev/null)
    _status=$(echo "$_answer" | head -n 1)
    case $_status in '' | *[!0-9]*) return 255 ;; esac
    echo "$_answer" | tail -n +2
    return "$_status"
}

# node_up: does it answer within a second or so?
node_up() {
    [ "$(ON_NODE_LIMIT=1 on_node echo up)" = up ]
}

# wait_for_node [SECONDS [COMMAND]]: until it answers, its RDMA port is active and has its address, which comes a moment
# later; runs the command there in the same question, for each takes a while.
wait_for_node() {
    _until=$(($(milliseconds) + ${1:-20} * 1000))
    _ready="gid-index >/dev/null && grep -qx '4: ACTIVE' /sys/class/infiniband/rxe0/ports/1/state"
    until _told=$(ON_NODE_LIMIT=2 on_node "$_ready && { ${2:-true}; }"); do
        [ "$(milliseconds)" -lt $_until ] || return 1
        usleep 50000
    done
    [ -z "$_told" ] || echo "$_told"
}

# node_boot: a name for the node's present life; another one after a restart, nothing when it does not answer.
node_boot() {
    on_node cat /proc/sys/kernel/random/boot_id
}

# start_on_node NAME COMMAND…: one command, left running until the case ends; its output is $OUT/NAME.log.
start_on_node() {
    _name=$1
    shift
    on_node "node-daemons start $_name $OUT/$_name.log $(quoted "$*")"
}

# signal_on_node NAME SIGNAL: STOP, CONT, KILL, … to what start_on_node started, and its children.
signal_on_node() {
    on_node "node-daemons signal $1 $2"
}

# wait_for_line FILE PATTERN [SECONDS]: until a line of the file matches; of a daemon's log, for example.
wait_for_line() {
    _until=$(($(milliseconds) + ${3:-10} * 1000))
    until grep -q "$2" "$1" 2>/dev/null; do
        [ "$(milliseconds)" -lt $_until ] || return 1
        usleep 20000
    done
}

# crash_node: its kernel panics, at once, and starts again by itself: wait_for_node sees it back.
crash_node() {
    expect_reboot
    printf '5\necho c >/proc/sysrq-trigger' | timeout 1 nc -w 1 $NODE_CONTROL 700 >/dev/null 2>&1 &
}

# expect_reboot: a restart of the node during this case is no failure. crash_node and `host` say it themselves.
expect_reboot() {
    touch /run/reboot-expected
}

# host COMMAND: asks the host, outside both guests, and waits until it is done.
#   pause-node, resume-node     SIGSTOP and SIGCONT to the whole virtual machine
#   kill-node, start-node       the plug pulled, and put back; restart-node does both. Not yet booted: wait_for_node
#   link-down node|monitor      the cable pulled out of that guest's data card; link-up puts it back
host() {
    case $1 in pause-node | kill-node | restart-node) expect_reboot ;; esac
    _reply=$(mktemp -u /run/host/XXXXXX)
    echo "host ${_reply##*/} $*" >/dev/ttyS1
    _until=$(($(milliseconds) + 20000))
    until [ -e "$_reply" ]; do
        [ "$(milliseconds)" -lt $_until ] || { echo "host $*: no answer"; return 1; }
        usleep 5000
    done
    read -r _status _text <"$_reply"
    rm "$_reply"
    [ -z "$_text" ] || echo "host $*: $_text"
    return "$_status"
}

# quoted TEXT: one word of shell that means the text.
quoted() {
    printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"
}
