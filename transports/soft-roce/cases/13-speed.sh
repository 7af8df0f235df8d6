# shellcheck shell=sh
# what: our READs against perftest's, within one guest and taking turns: ratios of the quietest rounds' medians
# limit: 150s

# Who disturbs the host for longer than the rounds take spoils all of them: then they are taken once more.
speed() {
    verbs_check speed >"$OUT/speed.txt" || return
    awk '/_ratio / && $2 > 1.15 { spoilt = 1 } END { exit spoilt }' "$OUT/speed.txt" && { cat "$OUT/speed.txt"; return; }
    cat "$OUT/speed.txt" >&2
    verbs_check speed
}

BOUNDS='read_8B_ratio:<=1.15 read_4096B_ratio:<=1.15 read_65536B_ratio:<=1.15 read_8B_time_ratio:<=1.15' measures speed
