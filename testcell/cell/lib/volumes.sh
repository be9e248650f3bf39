# shellcheck shell=bash
# The cell's content: dumps are built while the databases elect, then restored and released.

# replicated VOLUMES get a read-only site on every server.
REPLICATED="root.afs root.cell ro.data"

volume_names() {
    echo "root.afs root.cell ro.data work home.alice tiny"
    if [ "$SERVERS" -ge 2 ]; then echo work2; fi
}

# The server that holds a volume's read-write copy.
volume_server() {
    if [ "$1" = work2 ]; then echo 2; else echo 1; fi
}

build_dumps() {
    mkdir -p "$DIR/dumps"
    timeout 30 python3 "$HERE/content.py" "$SERVERS" "$DIR/dumps"
}

restore_volume() {
    local volume=$1 log=$DIR/dumps/$1.log i
    {
        afs_admin vos restore "$(server_address "$(volume_server "$volume")")" a "$volume" \
            -file "$DIR/dumps/$volume.dump" || return 1
        [[ " $REPLICATED " == *" $volume "* ]] || return 0
        # A first release to several sites sleeps for 5 s between the first and the others;
        # one to new sites beside a released one does not.
        afs_admin vos addsite "$(server_address 1)" a "$volume" || return 1
        afs_admin vos release "$volume" || return 1
        [ "$SERVERS" -gt 1 ] || return 0
        for ((i = 2; i <= SERVERS; i++)); do
            afs_admin vos addsite "$(server_address "$i")" a "$volume" || return 1
        done
        afs_admin vos release "$volume"
    } >"$log" 2>&1
}

volumes_up() {
    local volume
    # One after the other: together they now and then meet a 3 s sleep of the volume server.
    for volume in $(volume_names); do
        restore_volume "$volume" || {
            tail -n 5 "$DIR/dumps/$volume.log" >&2
            die "server $(volume_server "$volume"): volume $volume could not be restored"
        }
    done
    for volume in $(volume_names); do
        afs_admin vos examine "$volume" -noresolve | grep On-line >/dev/null || die "volume $volume is not on line"
    done
}
