# shellcheck shell=sh
# what: states of sessions extracted by RDMA READ, against plain READs of as many bytes, within one guest and taking turns
# limit: 60s

BOUNDS='extract_1024B_ratio:<=2 extract_4096B_ratio:<=2' measures verbs_check extraction
