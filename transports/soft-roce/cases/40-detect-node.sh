# shellcheck shell=sh
# what: the node's kernel crashes, it is stopped, its link goes, the monitor's own link goes: nobody in it is accused
# limit: 90s
# The node dies last, and of all cases here, so that nobody waits for it to start again.

expect_reboot
backdoor live detect --transport verbs --on "$STAGE" --failure link-down,own-link-down,command,kernel-crash --runs 1 \
    --inject '. /lib.sh; host pause-node' --repair '. /lib.sh; host resume-node' \
    --deadline 200ms --poll 5ms --format csv --quiet >"$OUT/detect.csv" || fail "live detect ended with status $?"
metric runs "$(rows "$OUT/detect.csv" 1)" runs "=4"
for failure in link-down own-link-down command kernel-crash; do
    this="v[\"failure\"] == \"$failure\""
    metric "$failure-detected" "$(rows "$OUT/detect.csv" "$this && v[\"detected\"] == \"true\"")" runs "=1"
    metric "$failure-detection" "$(median "$OUT/detect.csv" detection_ms "$this")" ms
    metric "$failure-accused" "$(median "$OUT/detect.csv" false_positives "$this")" entities "=0"
done
# The card gives up after 0.2 to 0.27 s.
for failure in link-down command kernel-crash; do
    metric "$failure-unreachable" \
        "$(rows "$OUT/detect.csv" "v[\"failure\"] == \"$failure\" && v[\"cause\"] == \"unreachable\"")" runs "=1"
done
metric own-link-down-local "$(rows "$OUT/detect.csv" 'v["failure"] == "own-link-down" && v["cause"] == "local_fault"')" \
    runs "=1"
