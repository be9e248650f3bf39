# shellcheck shell=bash
# Client namespaces, and Debian's afsd.fuse in one of them as a second, independent client.

client_config() {
    echo "$CELL" >"$CONF/ThisCell"
    printf '>%s #test cell\n%s #fs1.%s\n' "$CELL" "$DB_ADDR" "$CELL" >"$CONF/CellServDB"
    echo "/afs:/var/cache/openafs:50000" >"$CONF/cacheinfo"
}

# Network namespace only: mounts made by the command are the caller's mounts too.
exec_client() {
    local k=$1
    shift
    [ -e "/run/netns/$NAME-c$k" ] || die "no client $k in cell '$NAME' (1 to $CLIENTS)"
    KRB5_CONFIG=$CONF_DIR/krb5.conf exec nsenter --net="/run/netns/$NAME-c$k" "$@"
}

# FUSE mounts whose daemon has ended. Plain stat may still be answered from the kernel's cache.
dead_mounts() {
    local dir kind
    while read -r _ dir kind _; do
        [[ $kind == fuse* ]] || continue
        # The table writes a blank in a name as \040.
        dir=$(printf %b "$dir")
        # A living but slow daemon is not dead, so the error's own words decide.
        if [[ $(LC_ALL=C timeout 2 stat -f "$dir" 2>&1) == *"endpoint is not connected"* ]]; then echo "$dir"; fi
    done </proc/mounts
}

# afsd.fuse is anonymous only: no pioctl reaches it, so no fs, tokens, aklog. Its fsync does nothing
# (close stores), parallel readers may kill it, and it listens on a port of the kernel's choice, not
# 7001, so cmdebug and rxdebug cannot find it there.
reference_client() {
    case ${1:-} in
    up)
        shift
        reference_client_mount "$@"
        ;;
    down) reference_client_unmount ;;
    *) usage ;;
    esac
}

reference_client_mount() {
    local mountdir=${1:-} k=${2:-3}
    [ -d "$mountdir" ] || die "afsd-fuse up: '$mountdir' is not a folder"
    type -P afsd.fuse >/dev/null || die "afsd.fuse is missing: run $HERE/install"
    mountdir=$(readlink -f "$mountdir")
    if live_pid afsd >/dev/null; then die "afsd.fuse is already running"; fi
    echo "$mountdir" >"$DIR/afsd.mountdir"
    nsenter --net="/run/netns/$NAME-c$k" setsid afsd.fuse -confdir "$CONF_DIR" -dynroot -fakestat-all \
        -memcache -blocks 400000 -mountdir "$mountdir" -debug </dev/null >"$DIR/afsd.log" 2>&1 &
    record_pid afsd $!
    poll 30 timeout 10 ls "$mountdir/$CELL/" || {
        tail -n 20 "$DIR/afsd.log" >&2
        reference_client_unmount
        die "afsd.fuse does not serve $mountdir"
    }
}

reference_client_gone() { ! live_pid afsd; }

reference_client_unmount() {
    local mountdir pid
    [ -r "$DIR/afsd.mountdir" ] || return 0
    mountdir=$(cat "$DIR/afsd.mountdir")
    timeout 20 umount "$mountdir" 2>/dev/null || umount -l "$mountdir" 2>/dev/null || true
    if pid=$(live_pid afsd) && ! poll 10 reference_client_gone; then kill -9 "$pid" 2>/dev/null || true; fi
    rm -f "$DIR/afsd.mountdir" "$DIR/pids/afsd"
}
