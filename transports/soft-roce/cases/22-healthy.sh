# shellcheck shell=sh
# what: six seconds of health, watched from the other guest: nobody is accused
# limit: 40s

backdoor live detect --transport verbs --on "$STAGE" --failure none --duration 6s --deadline 500ms --poll 5ms \
    --format csv --quiet >"$OUT/detect.csv" || fail "live detect ended with status $?"
metric runs "$(rows "$OUT/detect.csv" 1)" runs "=1"
metric false_positives "$(median "$OUT/detect.csv" false_positives)" entities "=0"
metric late_samples "$(median "$OUT/detect.csv" late_samples)" samples
