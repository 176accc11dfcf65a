# Sourced by scripts/appliance-test: processes that die or hang, and a disk without room.

restarts() { within systemctl show --property=NRestarts --value moatd.service; }

back_with_another() {
    local now
    now=$(main_process moatd.service)
    [ "$now" != 0 ] && [ "$now" != "$1" ] && answers
}

moatd_comes_back() {
    local before
    before=$(main_process moatd.service)
    kill -KILL "$(outside "$before")"
    eventually 30 back_with_another "$before" || fail "moatd was killed and did not come back"
    [ "$(run_state "$run")" = done ] || fail "a run is forgotten after a kill"
    eventually 30 well || fail "the port is not as it was: $(asked || true)"
    held "moatd came back, knows its run, and serves the port"
}

training() { [ "$(moat --json run list | jq -r '.value | last | .state')" = training ] && engine_process; }

engine_process() {
    local unit
    unit=$(within systemctl list-units --plain --no-legend 'moat-engine-train@*' | awk '{ print $1; exit }')
    [ -n "$unit" ] && main_process "$unit" | grep -v '^0$'
}

engine_comes_back() {
    local starting killed process
    short_run kills 400 2>/dev/null &
    starting=$!
    eventually 60 training || fail "the run does not come to training"
    process=$(engine_process)
    alone "$(outside "$process")" moat-engine
    held "the engine's network is empty too"
    kill -KILL "$(outside "$process")"
    ! wait $starting || fail "a run whose engine was killed ended well"
    killed=$(moat --json run list | jq -r '.value | last | .name')
    [ "$(run_state "$killed")" = failed ] || fail "a run whose engine was killed is $(run_state "$killed")"
    answers >/dev/null || fail "moatd went with its engine"
    held "the run failed with a reason: $(moat --json run show "$killed" | jq -r .value.message)"
    moat --json run resume "$killed" >/dev/null 2>&1 &
    starting=$!
    eventually 60 training || fail "the run does not go on"
    moat --json run stop "$killed" >/dev/null || fail "the run cannot be stopped"
    wait $starting || true
    held "another engine took it up again, and stopped when asked"
}

watchdog_fires() {
    local before count
    before=$(main_process moatd.service) count=$(restarts)
    kill -STOP "$(outside "$before")"
    eventually 90 back_with_another "$before" || fail "moatd hung and the watchdog did not fire"
    [ "$(restarts)" -gt "$count" ] || fail "moatd was not started again"
    # Read to its end: a reader that leaves early fails the journal, and so the pipe.
    journal --unit=moatd.service | grep 'Watchdog timeout' >/dev/null || fail "it was not the watchdog"
    held "moatd hung: the watchdog ended it, and it came back"
}

full_disk() {
    local before document=$work/root$sources/new.md
    before=$(main_process moatd.service)
    # As root, to the last block.
    dd if=/dev/zero of="$work/state/filler" bs=64k 2>/dev/null || true
    dd if=/dev/zero of="$work/state/filler.rest" bs=512 2>/dev/null || true
    { echo "# Restoring the standby"; for _ in $(seq 40); do echo "The night shift restores the standby from the morning backup, number $RANDOM, and writes down the time."; done; } >"$document"
    moat --json scan >/dev/null 2>&1 || true
    ! short_run full 2 2>/dev/null || fail "a run went through with a full disk"
    held "with a full disk a run is refused"
    answers >/dev/null || fail "moatd does not answer with a full disk"
    [ "$(main_process moatd.service)" = "$before" ] || fail "a full disk ended moatd"
    held "moatd runs on, and says how it stands"
    ! moat run list >/dev/null 2>&1 || fail "an act went through that could not be written into the ledger"
    held "an act that the ledger has no room for is refused"
    rm "$work/state/filler" "$work/state/filler.rest"
    moat --json scan >/dev/null 2>&1 || fail "with room again the scan fails"
    moat --json why "$sources/new.md" >/dev/null || fail "a document that came while the disk was full is lost"
    [ "$(run_state "$run")" = done ] || fail "the run is forgotten"
    held "with room again the document is taken in, and nothing is lost"
}
