# shellcheck shell=bash disable=SC2154,SC2034
# The cases: listing them, running them one after another in the pair of guests, and what they measured.

case_header() { sed -n "s/^# $2: *//p" "$here/cases/$1.sh" | head -n 1; }

list_cases() {
    local file name
    for file in "$here"/cases/*.sh; do
        name=$(basename "$file" .sh)
        printf '%-16s %s (limit %s)\n' "$name" "$(case_header "$name" what)" "$(case_header "$name" limit)"
    done
}

# Names without a file are a mistake; no names mean all. A case without a limit would be a case without an end.
choose_cases() {
    local file name
    for name in "${cases[@]}"; do
        [ -f "$here/cases/$name.sh" ] || misused "no case $name; there are: $(cd "$here/cases" && echo *.sh)"
    done
    if [ ${#cases[@]} = 0 ]; then
        for file in "$here"/cases/*.sh; do cases+=("$(basename "$file" .sh)"); done
    fi
    for name in "${cases[@]}"; do
        [ -n "$(case_limit "$name")" ] || misused "cases/$name.sh has no line: # limit: SECONDS"
    done
}

case_limit() { case_header "$1" limit | sed -n 's/^\([0-9][0-9]*\) *s*$/\1/p'; }

# The results of an earlier run must not pass for this one's.
prepare_output() {
    mkdir -p "$out/logs"
    exec {lock}>"$out/.lock"
    flock -n "$lock" || die "another run writes to $out; give this one another directory with --out"
    rm -rf "$out/results.csv" "$out/results.part" "$out/cases" "$out"/logs/*.{console,qemu,log}
    mkdir "$out/cases"
}

run_cases() {
    local name
    for name in "${cases[@]}"; do
        say "$name"
        run_case "$name"
    done
}

# Runs a case, and adds its rows to the results: what it measured; its time, or why it failed.
run_case() {
    local name=$1 limit started=${EPOCHREALTIME/./} rows=$out/cases/$1/metrics.csv
    limit=$(case_limit "$name")
    ended="" reason="the guests could not be brought up"
    if ready_guests; then
        echo "case $name $limit" >&"$line_in"
        serve "$name" "$limit"
    fi
    local seconds=$(( (${EPOCHREALTIME/./} - started) / 100000 ))
    mkdir -p "$out/cases/$name"
    if [ "$ended" = ok ] && [ ! -s "$rows" ]; then
        ended=silent reason="it reported no metric"
    fi
    # A case that failed by itself has said why.
    [ "$ended" = ok ] || grep -qs '^failure,' "$rows" || echo "failure,${reason//[,\"]/ },,,no" >>"$rows"
    echo "duration,$((seconds / 10)).$((seconds % 10)),s,," >>"$rows"
    ! grep -q ',no$' "$rows" || say "$name FAILED: $(sed -n 's/^failure,\(.*\),,,no$/\1/p; t; s/^\([^,]*\),\([^,]*\),.*,\(.*\),no$/\1 is \2, not \3/p' "$rows" | paste -sd ';')"
    sed "s/^/$name,/" "$rows" >>"$out/results.part"
}

# Both guests running, connected, and the monitor's agent listening, whatever the last case left behind.
ready_guests() {
    local guest
    alive monitor || { say "the monitor's virtual machine has ended"; return 1; }
    for guest in node monitor; do
        [ -z "${paused[$guest]}" ] || resume_guest "$guest"
        [ -z "${cut[$guest]}" ] || set_link "$guest" up || true
    done
    alive node || start_guest node
}

# serve CASE LIMIT: does what the monitor guest asks for until the case is done, and sets `ended` and `reason`. The guest
# cuts a case off by itself; these deadlines are for a guest that is past that. Before a case begins it may take 40 s for
# the node to come up, and after it ended the node is asked whether it still lives.
serve() {
    local deadline=$((SECONDS + 50)) word first second rest
    while [ $SECONDS -lt $deadline ] && alive monitor; do
        read -r -t 1 -u "$line_out" word first second rest || continue
        case $word in
            host) serve_host "$first" "$second" "$rest" ;;
            begun) [ "$first" != "$1" ] || deadline=$((SECONDS + $2 + 20)) ;;
            done) [ "$first" != "$1" ] || { ended=$second reason=$rest; break; } ;;
            ready) ended=restarted reason="the monitor guest crashed; see logs/monitor.console"; break ;;
        esac
    done
    case $ended in
        '')
            ended=hung reason="the monitor guest hung; see logs/monitor.console"
            restart_monitor ;;
        no-node)
            # A node that does not come back by itself is started anew, for the next case.
            kill_guest node ;;
    esac
}

restart_monitor() {
    local word
    alive monitor && reset_guest monitor || return 0
    while read -r -t 60 -u "$line_out" word; do
        [ "$word" != ready ] || return 0
    done
}

# serve_host ID COMMAND ARGUMENT: see `host` in guest/lib.sh.
serve_host() {
    local status=0 text=''
    case $2 in
        pause-node) pause_guest node ;;
        resume-node) resume_guest node ;;
        kill-node) kill_guest node ;;
        start-node) alive node || start_guest node ;;
        restart-node) kill_guest node; start_guest node ;;
        link-down | link-up)
            case $3 in
                node | monitor) set_link "$3" "${2#link-}" ;;
                *) false ;;
            esac ;;
        *) false ;;
    esac || { status=1 text="the host could not, or does not know how to: $2 $3"; }
    echo "reply $1 $status $text" >&"$line_in"
}

# The monitor's agent is served while its user works at a console.
serve_shell() {
    step boot boot_guests "$1" </dev/stdin
    local word first second rest
    while alive "$1"; do
        read -r -t 1 -u "$line_out" word first second rest || continue
        [ "$word" != host ] || serve_host "$first" "$second" "$rest"
    done
}

print_results() {
    { echo case,metric,value,unit,bound,ok; cat "$out/results.part"; } >"$out/results.csv"
    rm "$out/results.part"
    # Widths first, then lines: no program that a plain Debian lacks.
    awk -F, '
        { for (i = 1; i <= NF; i++) { cell[NR, i] = $i; if (length($i) > width[i] && $2 != "failure") width[i] = length($i) } }
        END { for (row = 1; row <= NR; row++) { line = ""
            for (i = 1; i <= 6; i++) line = line sprintf(i == 3 ? "%" width[i] "s  " : "%-" width[i] "s  ", cell[row, i])
            sub(/ +$/, "", line); print line } }' "$out/results.csv"
    echo "results: $out/results.csv; what the cases said: $out/cases/*/log; consoles: $out/logs"
}

# Every case has rows and none says no.
all_held() {
    local name status=0
    for name in "${cases[@]}"; do
        grep -q "^$name,duration," "$out/results.csv" || { say "$name has no result"; status=1; }
    done
    ! grep -q ',no$' "$out/results.csv" || status=1
    return $status
}
