# shellcheck shell=bash disable=SC2154,SC2034
# The two guests: starting, stopping, and talking to their virtual machines. They are joined by two cables, each a Unix
# socket that the monitor listens on, so the node can be killed and started again while the monitor runs. Nothing of
# theirs reaches the host's network.
#
# Of each guest: pid[GUEST]; paused[GUEST] and cut[GUEST], "yes" while the machine stands still or its data cable is out.
# Pipes in $scratch: GUEST.qmp to its virtual machine, monitor.line to the agent in the monitor guest.

declare -A pid=() paused=() cut=()

boot_guests() {
    local guest pipe
    for guest in monitor node; do
        for pipe in "$guest.qmp" "$guest.line"; do
            mkfifo "$scratch/$pipe.in" "$scratch/$pipe.out"
        done
    done
    exec {line_in}<>"$scratch/monitor.line.in" {line_out}<>"$scratch/monitor.line.out"
    time_stamp_khz=$(measure_time_stamps) || die "could not measure the rate of this processor's time stamps"
    start_both "$@"
    await_both && return
    # Seen where the host was short of time: a kernel that stands still in its first seconds.
    say "the $late guest did not start; both are started once more; its console is logs/$late-late.console"
    stop_guests
    mv "$out/logs/$late.console" "$out/logs/$late-late.console" 2>/dev/null || true
    rm -f "$scratch"/{data,control}.sock
    # What the monitor said before it was stopped is no sign of its new life.
    while read -r -t 0.01 -u "$line_out"; do :; done
    start_both "$@"
    await_both && return
    tail -n 5 "$out"/logs/*.qemu "$out/logs/$late.console" >&2
    die "the $late guest did not start"
}

start_both() {
    start_guest monitor "$@"
    await_sockets
    start_guest node "$@"
}

# Until both are up; or else sets `late` to one that is not.
boot_limit=60
await_both() {
    local deadline=$((SECONDS + boot_limit)) word=''
    late=monitor
    until [ "$word" = ready ]; do
        { alive monitor && [ $SECONDS -lt $deadline ]; } || return 1
        read -r -t 1 -u "$line_out" word || true
    done
    late=node
    until grep -qs '^init: node is up' "$out/logs/node.console"; do
        { alive node && [ $SECONDS -lt $deadline ]; } || return 1
        sleep 0.05
    done
}

# start_guest GUEST [SHELL]: when SHELL is this guest, its console is ours.
start_guest() {
    local guest=$1 server=off mac=1 append="console=ttyS0 quiet panic=-1 oops=panic nowatchdog net.ifnames=0 role=$1"
    # The kernel distrusts the emulated time-stamp counters, which are one and the same, and would take a slow clock. It
    # also mistakes their rate now and then on a busy host: its seconds would pass many times too fast.
    append+=" tsc=reliable tsc_early_khz=$time_stamp_khz"
    # There, timer interrupts come late too, and a kernel that checks them takes its timer for broken and does not boot.
    append+=" no_timer_check"
    [ "$guest" = node ] || { server=on; mac=2; }
    # One file for all lives of a guest: QEMU would empty it at each start.
    local stdin=/dev/null console=(-chardev "file,id=console,path=$out/logs/$guest.console,append=on" -serial chardev:console)
    if [ "${2:-}" = "$guest" ]; then
        console=(-chardev "stdio,id=console,signal=off,logfile=$out/logs/$guest.console" -serial chardev:console)
        stdin=/dev/stdin
        append+=" shell=yes"
    fi
    # A guest must not outlive this script, even when that is killed without a chance to clean up.
    setpriv --pdeathsig KILL qemu-system-x86_64 -name "$guest" -accel tcg,thread=multi -cpu max -smp 2 -m 768 \
        -nodefaults -display none "${console[@]}" \
        -chardev "pipe,id=line,path=$scratch/$guest.line" -serial chardev:line \
        -chardev "pipe,id=qmp,path=$scratch/$guest.qmp" -mon chardev=qmp,mode=control \
        -netdev "stream,id=data,server=$server,addr.type=unix,addr.path=$scratch/data.sock" \
        -device "virtio-net-pci,netdev=data,mac=52:54:00:00:da:0$mac,romfile=" \
        -netdev "stream,id=control,server=$server,addr.type=unix,addr.path=$scratch/control.sock" \
        -device "virtio-net-pci,netdev=control,mac=52:54:00:00:c0:0$mac,romfile=" \
        -virtfs "local,path=$out/cases,mount_tag=out,security_model=none" \
        -kernel "$kernel_dir/vmlinux" -initrd "$scratch/image" -append "$append" \
        <"$stdin" 2>>"$out/logs/$guest.qemu" &
    pid[$guest]=$! paused[$guest]='' cut[$guest]=''
}

# QEMU shows its guests the host's own counter. Of several readings, the one in the shortest time counts.
measure_time_stamps() {
    gcc -O -x c -o "$scratch/time-stamps" - <<'END' || return 1
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

static int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static void read_both(int64_t *clock, int64_t *counter) {
    int64_t shortest = INT64_MAX;
    for (int reading = 0; reading < 100; reading++) {
        int64_t before = nanoseconds(), between = __rdtsc(), after = nanoseconds();
        if (after - before < shortest) {
            shortest = after - before;
            *clock = before + shortest / 2;
            *counter = between;
        }
    }
}

int main(void) {
    int64_t clock[2], counter[2];
    read_both(&clock[0], &counter[0]);
    usleep(100000);
    read_both(&clock[1], &counter[1]);
    printf("%.0f\n", (counter[1] - counter[0]) * 1e6 / (clock[1] - clock[0]));
}
END
    "$scratch/time-stamps"
}

await_sockets() {
    local deadline=$((SECONDS + 10))
    until [ -S "$scratch/data.sock" ] && [ -S "$scratch/control.sock" ]; do
        { alive monitor && [ $SECONDS -lt $deadline ]; } || { cat "$out/logs/monitor.qemu" >&2; die "QEMU did not start"; }
        sleep 0.02
    done
}

alive() {
    [ -n "${pid[$1]:-}" ] && kill -0 "${pid[$1]}" 2>/dev/null
}

# The plug pulled. Its bash would report a killed child on standard error.
kill_guest() {
    [ -n "${pid[$1]:-}" ] || return 0
    kill -KILL "${pid[$1]}" 2>/dev/null || true
    { wait "${pid[$1]}" || true; } 2>/dev/null
    pid[$1]=''
}

stop_guests() {
    kill_guest node
    kill_guest monitor
}

pause_guest() { kill -STOP "${pid[$1]}" && paused[$1]=yes; }
resume_guest() { kill -CONT "${pid[$1]}" && paused[$1]=''; }

# set_link GUEST up|down: its data cable.
set_link() {
    local up=false
    [ "$2" = down ] || up=true
    qmp "$1" "{\"execute\": \"set_link\", \"arguments\": {\"name\": \"data\", \"up\": $up}" || return 1
    cut[$1]=yes
    [ "$2" = down ] || cut[$1]=''
}

reset_guest() { qmp "$1" '{"execute": "system_reset"'; }

# qmp GUEST JSON: one command, without its last brace, to the guest's virtual machine. The greeting that a machine wants
# first is sent each time, and refused after the first; a number tells the answer that counts.
commands=0
qmp() {
    local to from answer status=1
    commands=$((commands + 1))
    exec {to}<>"$scratch/$1.qmp.in" {from}<>"$scratch/$1.qmp.out"
    printf '{"execute": "qmp_capabilities"}\n%s, "id": %d}\n' "$2" $commands >&"$to"
    while read -r -t 5 -u "$from" answer; do
        case $answer in
            *"\"return\""*"\"id\": $commands}"*) status=0; break ;;
            *"\"id\": $commands,"*"\"error\""*) break ;;
        esac
    done
    exec {to}>&- {from}>&-
    return $status
}
