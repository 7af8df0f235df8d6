# shellcheck shell=sh
# what: the conformance suite of all transports, over real queue pairs within one guest
# limit: 40s

BOUNDS='cases:>=38 skipped:<=1 failed:=0' measures verbs_check conformance
