# shellcheck shell=sh
# what: a region taken back under live READs: no READ that began later succeeds, not even over a new connection
# limit: 40s

BOUNDS='reads:>100 reads_after_revocation:=0' measures verbs_check revocation
