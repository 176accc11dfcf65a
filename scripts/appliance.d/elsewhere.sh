# Sourced by scripts/appliance-test: a second machine, on which a backup of the first one is restored; the .rpm.

# back_up   a backup of the first machine, and a passphrase, since its credential opens nothing on another one.
back_up() {
    head -c 18 /dev/urandom | base64 >"$work/passphrase"
    moat vault add-slot <"$work/passphrase" >/dev/null || fail "no passphrase can be added"
    moat --json backup /var/lib/moat-backups/whole >"$work/backup.json" || fail "no backup can be made"
    moat verify /var/lib/moat-backups/whole >/dev/null || fail "the backup does not verify"
    held "a backup while moatd works, $(du -sh "$work/root/var/lib/moat-backups/whole" | cut -f1), verified"
}

# told RUN   what a run is, as far as two machines must say the same.
told() { moat --json run show "$1" | jq -S '.value | { name, state, recipe_hash, dataset, base, steps, outcome, edge }'; }

completion() { moat --json ask --run "$run" --max-tokens 16 --seed 7 "To list files, use" | jq -e '.value | map(del(.tokens_per_second))'; }

# restored_elsewhere   the backup on a machine that has nothing of the first one but medium, configuration and documents.
restored_elsewhere() {
    local first=$init here said completed key
    here=$(told "$run")
    completed=$(completion) || fail "the first machine does not answer"
    key=$(moat --json ledger list --most 1 | jq -r .value.key)
    cp -a --reflink=auto "$cached" "$work/second"
    boot_machine $machine-second "$work/second" --private-network
    second=$init
    mkdir -p "$work/second/root/medium"
    cp -a "$work/root/srv/." "$work/second/srv"
    cp -a "$work/root/var/lib/moat-backups/whole" "$work/second/root/medium/"
    cp "$deb" "$work/second/root/moat.deb"
    within dpkg --install /root/moat.deb >/dev/null 2>&1 || fail "the package does not install on the second machine"
    cp "$work/root/etc/moat/moat.toml" "$work/second/etc/moat/moat.toml"
    mkdir -p "$work/second/etc/systemd/system/moatd.service.d"
    cp "$work/root/etc/systemd/system/moatd.service.d/sources.conf" "$work/second/etc/systemd/system/moatd.service.d/"
    within systemctl daemon-reload
    said=$(moat restore /root/medium/whole /var/lib/moat 2>&1) || { echo "$said" >&2; fail "the backup is not restored"; }
    within systemd-tmpfiles --create
    within systemctl enable --now --quiet moatd.service || fail "moatd does not start on what was restored"
    eventually 30 answers || fail "moatd does not answer on the second machine"
    ! unsealed >/dev/null || fail "the second machine is open without a key"
    moat vault unseal <"$work/passphrase" >/dev/null || fail "the passphrase does not open the vault on the second machine"
    [ "$(told "$run")" = "$here" ] || fail "run $run is another on the second machine: $(told "$run")"
    [ "$(completion)" = "$completed" ] || fail "the model answers otherwise on the second machine"
    held "on a second machine, opened by the passphrase, the run and the model's answer are the same"
    [ "$(moat --json ledger list --act state.restored | jq '.value.entries | length')" = 1 ] || fail "the ledger does not tell of the restore"
    [ "$(moat --json ledger list --most 1 | jq -r .value.key)" = "$key" ] || fail "the ledger has another key"
    moat --json scan >/dev/null 2>&1 || fail "the second machine does not take up its source"
    ! proof_of ada | moat_as ada export "$run" /srv/elsewhere --as ada >/dev/null 2>&1 || fail "the second machine exports anywhere"
    held "its ledger goes on under the same key, and tells of the restore; the same people have the same rights"
    init=$first
}

# rpm_within ARGUMENT...   this machine's rpm, in the container.
rpm_within() {
    local tools=$work/second/opt/rpm
    if [ ! -d "$tools" ]; then
        mkdir -p "$tools"
        ldd /usr/bin/rpm | awk '$3 ~ /^\// { print $3 }' | xargs cp --dereference --target-directory="$tools" /usr/bin/rpm
        cp -a /usr/lib/rpm "$tools/configuration"
    fi
    within env LD_LIBRARY_PATH=/opt/rpm RPM_CONFIGDIR=/opt/rpm/configuration /opt/rpm/rpm --force-debian "$@"
}

# rpm_installs   the .rpm in place of the .deb, on the second machine. That is a Debian, whose rpm knows no package that
# could satisfy what this one requires.
rpm_installs() {
    local first=$init said
    init=$second
    within dpkg --purge moat >/dev/null 2>&1 || fail "the .deb does not go away"
    cp "$work"/packages/*.rpm "$work/second/root/moat.rpm"
    said=$(rpm_within --nodeps --install /root/moat.rpm 2>&1) || { echo "$said" >&2; fail "the .rpm does not install"; }
    said=$(diff <(within sh -c 'while read -r path; do test -d "$path" || echo "$path"; done' < <(rpm_within --query --list moat) | LC_ALL=C sort) \
        <(dpkg-deb --fsys-tarfile "$deb" | tar -t | sed -n 's/^\.\(.*[^/]\)$/\1/p' | LC_ALL=C sort)) || fail "the two packages hold other files: $said"
    cp "$work/root/etc/moat/moat.toml" "$work/second/etc/moat/moat.toml"
    within systemctl start moatd.service || fail "moatd does not start from the .rpm"
    eventually 30 answers || fail "moatd does not answer from the .rpm"
    moat vault unseal <"$work/passphrase" >/dev/null || fail "the vault does not open under the .rpm"
    [ "$(run_state "$run")" = done ] || fail "the run is forgotten under the .rpm"
    said=$(rpm_within --erase moat 2>&1) || { echo "$said" >&2; fail "the .rpm does not go away"; }
    ! within test -e /usr/libexec/moat/moatd || fail "the .rpm leaves programs behind"
    ! within systemctl is-active --quiet moatd.service || fail "moatd outlives the .rpm"
    within test -e /var/lib/moat/catalog.db || fail "removing the .rpm removed the state"
    held "the .rpm holds the same files, takes the state over, and goes away without it"
    init=$first
}
