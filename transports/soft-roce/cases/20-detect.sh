# shellcheck shell=sh
# what: a process of the node fails, the monitor in the other guest notices and reads its sessions' states, byte for byte
# limit: 60s

backdoor live detect --transport verbs --on "$STAGE" --failure sigstop,sigkill,session-stuck --runs 1 \
    --deadline 200ms --poll 5ms --format csv --quiet >"$OUT/detect.csv" || fail "live detect ended with status $?"
metric runs "$(rows "$OUT/detect.csv" 1)" runs "=3"
for failure in sigstop sigkill session-stuck; do
    this="v[\"failure\"] == \"$failure\""
    metric "$failure-detected" "$(rows "$OUT/detect.csv" "$this && v[\"detected\"] == \"true\"")" runs "=1"
    metric "$failure-detection" "$(median "$OUT/detect.csv" detection_ms "$this")" ms
    metric "$failure-diagnosed" "$(rows "$OUT/detect.csv" "$this && v[\"cause\"] == v[\"level\"]")" runs "=1"
    metric "$failure-states_right" \
        "$(rows "$OUT/detect.csv" "$this && v[\"affected\"] > 0 && v[\"recovered_ok\"] == v[\"affected\"]")" runs "=1"
done

# The same with everything in one guest, through its own card.
backdoor live detect --transport verbs --failure sigstop --runs 1 --deadline 200ms --poll 5ms --format csv --quiet \
    >"$OUT/loopback.csv" || fail "live detect within one guest ended with status $?"
metric loopback-detected "$(rows "$OUT/loopback.csv" 'v["detected"] == "true" && v["cause"] == "application"')" runs "=1"
metric loopback-states_right \
    "$(rows "$OUT/loopback.csv" 'v["affected"] > 0 && v["recovered_ok"] == v["affected"]')" runs "=1"
metric same_columns "$([ "$(head -n 1 "$OUT/detect.csv")" = "$(head -n 1 "$OUT/loopback.csv")" ] && echo 1 || echo 0)" "" "=1"
