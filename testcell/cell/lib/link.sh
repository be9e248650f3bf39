# shellcheck shell=bash
# A wide network in the place of a client's cable: two TAP devices, and the program testcell-link between them.

LINK=${AFS_LINK:-$HERE/../../target/release/testcell-link}

link_ready() { ip link show "$NAME-l$1" && ip -n "$NAME-c$1" link show link0; }

# link_up K OPTIONS...: the client keeps its address, IP and Ethernet, so that nobody has to learn another.
link_up() {
    local k=$1 ns=$NAME-c$1 mac
    shift
    [ -e "/run/netns/$ns" ] || die "no client $k in cell '$NAME' (1 to $CLIENTS)"
    [ -x "$LINK" ] || die "$LINK is missing: cargo build --release -p testcell --bin testcell-link, or name one in AFS_LINK"
    link_down "$k"
    mac=$(ip netns exec "$ns" cat /sys/class/net/eth0/address)
    setsid "$HERE/lib/tap" "$NAME-l$k" 1 nsenter --net="/run/netns/$ns" "$HERE/lib/tap" link0 0 "$LINK" "$@" \
        2>"$DIR/link$k.log" {LOCK}>&- &
    record_pid "link$k" $!
    poll 5 link_ready "$k" || {
        cat "$DIR/link$k.log" >&2
        die "the link of client $k does not come up"
    }
    ip -n "$ns" link set eth0 down
    ip -n "$ns" addr flush dev eth0
    ip -n "$ns" link set link0 address "$mac" txqueuelen 10000
    ip -n "$ns" addr add "$(client_address "$k")/24" dev link0
    ip -n "$ns" link set link0 up
    ip link set "$NAME-l$k" master "$NAME-br" txqueuelen 10000 up
}

# link_down K: the cable again.
link_down() {
    local k=$1 ns=$NAME-c$1 pid
    pid=$(live_pid "link$k") || return 0
    kill "$pid"
    poll 5 link_gone "$k" || die "the link of client $k does not end"
    rm -f "$DIR/pids/link$k"
    ip -n "$ns" addr add "$(client_address "$k")/24" dev eth0
    ip -n "$ns" link set eth0 up
}

link_gone() { ! ip -n "$NAME-c$1" link show link0; }
