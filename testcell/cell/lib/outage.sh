# shellcheck shell=bash
# Taking a file server away and waiting until it is back.

# A log of an earlier process must not count as this one's.
forget_log() { mv -f "$DIR/s$1/log/FileLog" "$DIR/s$1/log/FileLog.before" 2>/dev/null || true; }

wait_ready() {
    poll 90 file_server_ready "$1" || {
        show_logs
        die "server $1 (fs$1): the file server did not come back"
    }
}

fs_kill() {
    local pid
    pid=$(server_program "$1" dafileserver) || die "server $1: no file server runs"
    forget_log "$1"
    kill -9 "$pid"
    wait_ready "$1"
}

file_server_gone() { ! server_program "$1" dafileserver; }

fs_stop() {
    local i=$1 address pid
    address=$(server_address "$i")
    if [ "${2:-}" = -9 ]; then
        pid=$(server_program "$i" dafileserver) || die "server $i: no file server runs"
        # Stopped first: it must not see bosserver's orderly shutdown, only its own end.
        kill -STOP "$pid"
        afs_admin bos stop "$address" dafs
        kill -9 "$pid"
    else
        afs_admin bos stop "$address" dafs
    fi
    poll 60 file_server_gone "$i" || die "server $i: the file server did not stop"
}

fs_start() {
    forget_log "$1"
    afs_admin bos start "$(server_address "$1")" dafs
    wait_ready "$1"
}
