# shellcheck shell=sh
# what: our READs against perftest's, within one guest and taking turns: ratios of the quietest rounds' medians
# limit: 240s

BOUNDS='read_8B_ratio:<=1.15 read_4096B_ratio:<=1.15 read_65536B_ratio:<=1.15 read_8B_time_ratio:<=1.15' \
    measures verbs_check speed
