# shellcheck shell=bash
# One bridge for a cell, with an address in the root namespace; one namespace for each server and client.

# Servers are .11 to .13, clients .101 and up, the root namespace is .1.
server_address() { echo "$SUBNET.$((10 + $1))"; }
client_address() { echo "$SUBNET.$((100 + $1))"; }

# The first free subnet, taken by the bridge's address while no other start looks.
bridge_up() {
    local n mutex
    exec {mutex}>"$REGISTRY/.subnet.lock"
    flock -w 30 "$mutex" || die "another start holds the choice of a subnet"
    for n in {1..250}; do
        SUBNET=10.71.$n
        [ -n "$(ip -4 addr show to "$SUBNET.0/24")" ] || break
    done
    ip link add "$NAME-br" type bridge
    ip addr add "$SUBNET.1/24" dev "$NAME-br"
    ip link set "$NAME-br" up
    exec {mutex}>&-
}

# A client in the root namespace that outlives its cell must not send to the machine's default route.
guard_range() {
    ip route replace unreachable 10.71.0.0/16 metric 4096
}

# join ROLE ADDRESS: namespace NAME-ROLE with one interface on the bridge.
join() {
    local ns=$NAME-$1 veth=$NAME-$1
    ip netns add "$ns"
    ip link add "$veth" type veth peer name eth0 netns "$ns"
    ip link set "$veth" master "$NAME-br" up
    ip -n "$ns" addr add "$2/24" dev eth0
    ip -n "$ns" link set lo up
    ip -n "$ns" link set eth0 up
}

net_up() {
    local i
    for ((i = 1; i <= SERVERS; i++)); do join "s$i" "$(server_address "$i")"; done
    for ((i = 1; i <= CLIENTS; i++)); do join "c$i" "$(client_address "$i")"; done
    # dafileserver -udpsize is cut to this limit.
    [ "$(sysctl -n net.core.rmem_max)" -ge 4194304 ] || sysctl -q -w net.core.rmem_max=4194304
}

cell_namespaces() {
    local path
    for path in /run/netns/"$NAME"-[sc][1-9]; do
        [ ! -e "$path" ] || echo "${path##*/}"
    done
}

# Every process in a namespace of this cell, whoever started it there.
cell_pids() {
    local ns
    for ns in $(cell_namespaces); do ip netns pids "$ns"; done
}

net_down() {
    local ns link
    for ns in $(cell_namespaces); do ip netns del "$ns"; done
    # The host ends of the veth pairs go with their namespaces, but only after a moment.
    for link in /sys/class/net/"$NAME"-{br,[scl][1-9]}; do
        [ ! -e "$link" ] || ip link del "${link##*/}" 2>/dev/null || true
    done
}
