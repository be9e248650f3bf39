# shellcheck shell=bash
# One bosserver for each server, in network, mount and UTS namespaces of its own. Its pid is the handle to them.

BIN=/usr/lib/openafs

bos_config() {
    # bosserver splits its lines at blanks, so no path of the source tree may be in them.
    cp "$HERE/lib/after-socket" "$DIR/after-socket"
    local run_fs=$2
    echo "restrictmode 0"
    # 16 = never.
    echo "restarttime 16 0 0 0 0"
    echo "checkbintime 16 0 0 0 0"
    if [ "$1" = 1 ]; then
        printf 'bnode simple %s 1\nparm %s\nend\n' ptserver $BIN/ptserver vlserver $BIN/vlserver
    fi
    printf 'bnode dafs dafs %s\n' "$run_fs"
    printf 'parm %s\n' "$DIR/after-socket salvsync.sock $BIN/dafileserver -L -udpsize 1048576" \
        "$DIR/after-socket fssync.sock $BIN/davolserver" "$BIN/salvageserver" "$BIN/dasalvager"
    echo end
}

server_files() {
    local i=$1 s=$DIR/s$1 j
    mkdir -p "$s"/{etc/server,log,vicepa,var/local,var/db}
    chmod 700 "$s"/var/{local,db}
    cp "$CONF"/{ThisCell,CellServDB} "$s/etc"
    cp "$CONF"/{ThisCell,CellServDB} "$s/etc/server"
    cp "$DIR/keytabs/afs.keytab" "$s/etc/server/rxkad.keytab"
    echo admin >"$s/etc/server/UserList"
    echo "$REALM" >"$s/etc/server/krb.conf"
    server_address "$i" >"$s/var/local/NetInfo"
    touch "$s/vicepa/AlwaysAttach"
    echo "hosts: files" >"$s/nsswitch.conf"
    {
        echo "127.0.0.1 localhost"
        for ((j = 1; j <= SERVERS; j++)); do echo "$(server_address "$j") fs$j.$CELL fs$j"; done
    } >"$s/hosts"
}

# partition_in_memory I: its size; nothing if the partition of server I lies on the disk.
partition_in_memory() {
    if [ "$1" = 2 ] && [ -n "$PARTITION" ]; then echo "$PARTITION"; else echo "$IN_MEMORY"; fi
}

# server_start I: RUN_FS 0 keeps the file server down until the protection server can answer it.
server_start() {
    local i=$1 s=$DIR/s$1
    bos_config "$i" "$2" >"$s/etc/BosConfig"
    # shellcheck disable=SC2016 # the inner shell expands it
    nsenter --net="/run/netns/$NAME-s$i" setsid unshare --mount --uts --propagation private \
        bash -c '
            set -e
            hostname "$2"
            mount --bind "$1/etc" /etc/openafs
            mount --bind "$1/var" /var/lib/openafs
            mount --bind "$1/log" /var/log/openafs
            if [ -n "$3" ]; then
                mount -t tmpfs -o "size=$3" tmpfs "$1/vicepa"
                touch "$1/vicepa/AlwaysAttach"
            fi
            mount --bind "$1/vicepa" /vicepa
            mount --bind "$1/hosts" /etc/hosts
            mount --bind "$1/nsswitch.conf" /etc/nsswitch.conf
            cd /
            akeyconvert >/dev/null
            exec bosserver -nofork' server "$s" "fs$i" "$(partition_in_memory "$i")" \
        </dev/null >"$s/start.log" 2>&1 {LOCK}>&- &
    record_pid "s$i" $!
}

# in_server I COMMAND...: in the namespaces of server I, in the caller's folder.
in_server() {
    local i=$1 pid
    shift
    pid=$(live_pid "s$i") || die "server $i (fs$i) is not running; its log: $DIR/s$i/log/BosLog"
    nsenter -t "$pid" --net --mount --uts --wdns="$PWD" "$@"
}

afs_admin() { in_server 1 timeout 60 "$@" -localauth; }

# The process that runs PROGRAM on server I.
server_program() {
    local pid
    for pid in $(ip netns pids "$NAME-s$1"); do
        [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != "$2" ] || { echo "$pid"; return 0; }
    done
    return 1
}

# pts answers and is writable only after ubik's election, about 4 s after its start.
# createuser is the probe: a listing never returns from a database that was never written.
protection_up() {
    poll 60 in_server 1 timeout 5 pts createuser admin -id 1000 -localauth || die "server 1: the protection server (ptserver) takes no writes"
    afs_admin pts adduser admin system:administrators >/dev/null
    afs_admin pts createuser alice -id 1001 >/dev/null
    afs_admin pts createuser bob -id 1002 >/dev/null
}

# Serving: its own log says it started, and the volume server has every volume on line.
file_server_ready() {
    local i=$1 listing
    grep -qs 'File Server started' "$DIR/s$i/log/FileLog" || return 1
    listing=$(in_server "$i" timeout 20 vos listvol "$(server_address "$i")" a -localauth -noresolve 2>/dev/null) || return 1
    grep -q 'Total volumes onLine [0-9]* ; Total volumes offLine 0 ; Total busy 0' <<<"$listing"
}

file_server_registered() {
    afs_admin vos listaddrs -noresolve | grep -xF "$(server_address "$1")" >/dev/null
}
