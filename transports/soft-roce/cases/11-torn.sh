# shellcheck shell=sh
# what: READs of words that another processor rewrites: most of 4 KiB are torn, and no State Box that was accepted is
# limit: 30s

BOUNDS='state_mixtures:=0 torn_4KiB:>0 state_whole:>0' measures verbs_check torn
