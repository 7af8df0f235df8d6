# shellcheck shell=sh
# what: both guests have a Soft-RoCE device with an active port and a RoCE v2 GID for IPv4
# limit: 20s

port=/sys/class/infiniband/rxe0/ports/1
for guest in monitor node; do
    on=''
    [ $guest = monitor ] || on=on_node
    rdma=$($on rdma link show)
    echo "$guest: $rdma"
    state=$($on cat $port/state) || fail "$guest has no rxe0"
    metric "${guest}_port_state" "${state%%:*}" "" "=4"
    gid=$($on gid-index) || fail "$guest has no RoCE v2 GID for an IPv4 address"
    metric "${guest}_gid_index" "$gid" "" ">=0"
    metric "${guest}_card_mtu" "$($on cat /sys/class/net/data/mtu)" bytes
done
ping -c 1 -W 2 "$NODE" || fail "the node does not answer on its data card"
backdoor doctor --transport verbs >"$OUT/doctor.txt" || fail "the doctor finds something missing"
cat "$OUT/doctor.txt"
