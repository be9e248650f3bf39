# shellcheck shell=bash
# shellcheck disable=SC2034 # these are read by the other parts
# State of one cell: a folder with `env` (KEY=VALUE), `pids/ROLE`, a folder for each server.

REGISTRY=/run/afs-testcell
CELL=lab.example
REALM=LAB.EXAMPLE
OTHER_REALM=OTHER.EXAMPLE
CLIENTS=3

say() { printf 'cell: %s\n' "$*" >&2; }

die() {
    FAILURE=$*
    say "$*"
    exit 1
}

FAILURE=

# Every log of the cell that may say why, newest lines only.
show_logs() {
    local log
    for log in "$DIR"/kdc/*.log "$DIR"/s[123]/start.log "$DIR"/s[123]/log/*Log; do
        [ -s "$log" ] || continue
        printf -- '--- %s\n' "$log" >&2
        tail -n 12 "$log" >&2
    done
}

# poll SECONDS COMMAND...: until the command succeeds. Each try is bounded too.
poll() {
    local limit=$1 end
    shift
    end=$((${EPOCHREALTIME/./} + limit * 1000000))
    until "$@" >/dev/null 2>&1; do
        [ "${EPOCHREALTIME/./}" -lt "$end" ] || return 1
        sleep 0.1
    done
}

# A pid alone may be another process by now; pid and start time together name one process.
start_time() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    # Fields after the command name, which may itself hold blanks and brackets.
    read -r -a stat <<<"${stat##*) }"
    # A zombie holds its pid until somebody reaps it, but has ended.
    [ "${stat[0]}" != Z ] || return 1
    echo "${stat[19]}"
}

record_pid() {
    mkdir -p "$DIR/pids"
    echo "$2 $(start_time "$2")" >"$DIR/pids/$1"
    # The shell is not to report its end.
    disown "$2"
}

# Prints the pid of a recorded role while that process lives.
live_pid() {
    local pid since
    read -r pid since 2>/dev/null <"$DIR/pids/$1" || return 1
    [ "$(start_time "$pid")" = "$since" ] && echo "$pid"
}

load_cell() {
    [ -r "$DIR/env" ] || die "no cell '$NAME' here: cell up --name $NAME"
    # shellcheck disable=SC1091
    . "$DIR/env"
}

# A start that was killed half-way leaves live servers, but no mark.
is_up() { [ -e "$DIR/ready" ] && live_pid s1 >/dev/null; }

require_up() {
    load_cell
    is_up || die "cell '$NAME' is not running: cell up --name $NAME"
}
