# Sourced by scripts/appliance-test: installing, starting, the whole line on real documents, removing.

source=documentation
sources=/srv/documentation
tree=/srv/tree

install_package() {
    local said
    cp "$deb" "$work/root/root/moat.deb"
    [ -z "$(in_network ip route show default)" ] ||
        fail "the container has a route to somewhere"
    said=$(within dpkg --install /root/moat.deb 2>&1) || { echo "$said" >&2; fail "the package does not install"; }
    held "installed: $(within dpkg-query --show moat)"
    for unit in moatd.service moatd.socket moat-engine-train.socket moat-engine-serve.socket; do
        ! within systemctl is-active --quiet $unit || fail "$unit runs before anybody asked for it"
    done
    held "nothing was started by installing"
}

# Real documents: the documentation that Debian's packages carry, those of this machine and of the container.
documents() {
    mkdir -p "$work/root$sources"
    find /usr/share/doc /usr/share/perl /usr/lib/python3 -type f \( -name '*.html' -o -name '*.md' -o -name '*.rst' -o -name '*.pod' -o -name '*.py' \) \
        -size +2k -size -24k 2>/dev/null | LC_ALL=C sort | awk 'NR <= 2000 && NR % 16 == 1' | while read -r file; do
        cp "$file" "$work/root$sources/$(echo "${file#/usr/}" | tr / _)"
    done
    # Strings by which these documents are known wherever they come to lie.
    local file
    tr -dc a-z </dev/urandom | fold -w 24 | head -n 100 >"$work/planted" || true
    while read -r planted; do
        file=$work/root$sources/$(ls "$work/root$sources" | shuf -n 1)
        printf '\nThe night shift calls this standby %s and writes its state into the book.\n' "$planted" >>"$file"
    done <"$work/planted"
    # And a repository of somebody else's, with some of them.
    mkdir -p "$work/root$tree"
    find "$work/root$sources" -type f | LC_ALL=C sort | awk 'NR % 10 == 1' | while read -r file; do
        sed 's/$/ /' "$file" >"$work/root$tree/tree-$(basename "$file")"
    done
    git -C "$work/root$tree" init --quiet
    git -C "$work/root$tree" add .
    git -C "$work/root$tree" -c user.name=Ada -c user.email=ada@site.example -c commit.gpgsign=false commit --quiet --message "Begin"
    chown -R 60001:60001 "$work/root$tree"
    [ "$(find "$work/root$sources" -type f | wc -l)" -ge 40 ] || fail "this machine has too few documents for a run"
}

configure() {
    documents
    mkdir -p "$work/root/etc/systemd/system/moatd.service.d"
    printf '[Service]\nBindReadOnlyPaths=%s %s\n' $sources $tree >"$work/root/etc/systemd/system/moatd.service.d/sources.conf"
    printf '\n[[source]]\nname = "%s"\nkind = "folder"\npath = "%s"\nsettle_seconds = 0\n' $source $sources >>"$work/root/etc/moat/moat.toml"
    printf '\n[[source]]\nname = "tree"\nkind = "git"\npath = "%s"\n' $tree >>"$work/root/etc/moat/moat.toml"
    within install -d -m 700 /etc/credstore.encrypted
    within sh -c 'head -c 32 /dev/urandom | systemd-creds encrypt --name=moat-kek - /etc/credstore.encrypted/moat-kek' 2>"$work/creds.log" ||
        { cat "$work/creds.log" >&2; fail "the key cannot be made"; }
    within systemctl daemon-reload
    held "$(find "$work/root$sources" -type f | wc -l) documents, a key"
}

start_moat() {
    within systemctl enable --now --quiet moatd.service || fail "moatd does not start"
    answers >/dev/null || fail "moatd is started and does not answer"
    held "moatd is ready, and answers"
    local not
    not=$(moat --json status | jq -r '.value.protections | to_entries[] | select(.value | not) | .key')
    [ -z "$not" ] || fail "protections that were not had: $not"
    held "every protection was had"
}

answers() { moat --json status; }

# A run of few steps, whose name is in `run`.
short_run() {
    sed -e "s/^name = .*/name = \"$1\"/" -e "s/^max_steps = .*/max_steps = $2/" -e 's/^checkpoint_every = .*/checkpoint_every = 5/' \
        config/recipes/demo.toml >"$work/root/root/$1.toml"
    moat --json run start "/root/$1.toml" >"$work/run.json" 2>"$work/run.log" || { tail -n 5 "$work/run.log" >&2; return 1; }
}

run_state() { moat --json run show "$1" | jq -r .value.state; }

the_line() {
    moat --json base import /usr/share/moat/bases/moat-starter >/dev/null || fail "the base cannot be imported"
    local kept
    kept=$(moat --json scan 2>/dev/null | jq '[.value.sources[].verdicts.kept] | add')
    [ "$kept" -gt 0 ] || fail "no record was kept"
    held "$kept records kept"
    kept=$(moat --json status | jq '.value.sources.tree.present')
    [ "$kept" -gt 0 ] || fail "the repository's documents were not read: $(moat status)"
    held "$kept documents of a repository of another user's are read"
    short_run line 12 || fail "the run failed"
    run=$(moat --json run list | jq -r '.value | last | .name')
    [ "$(run_state "$run")" = done ] || fail "run $run is $(run_state "$run")"
    held "run $run is done: $(moat run show "$run" | grep -E '^(no )?edge')"
    # An engine that systemd starts may read what it takes itself.
    local memory
    memory=$(moat --json run show "$run" | jq -r '.value | "\(.outcome.peak_memory) of \([.course.memory.parts[].bytes] | add)"')
    [ "${memory%% *}" -gt 1000000 ] || fail "the engine could not tell its memory: $memory bytes planned"
    held "its engine tells its own memory: $memory bytes planned"
    moat --json ask --run "$run" --max-tokens 8 "To list files, use" >"$work/answer.json" || fail "no answer"
    held "base and tuned model answered"
    people=$work/people
    set_up_people root:steward,engineer,admin,auditor:0 ada:engineer,admin:60001 ben:approver:60002 || fail "the first accounts cannot be made"
    local asked
    asked=$(proof_of ada | moat_as ada --json export "$run" /var/lib/moat-exports/first --as ada | jq -r .value.id) || fail "nobody can ask for an export"
    ! within test -e /var/lib/moat-exports/first || fail "one person exported"
    ! proof_of ada | moat_as ada statement approve "$asked" --as ada >/dev/null 2>&1 || fail "one person agreed with herself"
    ! proof_of ben | moat statement approve "$asked" --as ben >/dev/null 2>&1 || fail "root agreed in another's name"
    held "one person alone exports nothing, and root agrees to nothing"
    proof_of ben | moat_as ben statement approve "$asked" --as ben >/dev/null || fail "the export failed"
    within sh -c 'cd /var/lib/moat-exports/first && sha256sum --check --quiet SHA256SUMS' || fail "the export's sums do not hold"
    held "the export's sums hold"
    ! proof_of ada | moat_as ada export "$run" /srv/elsewhere --as ada >/dev/null 2>&1 || fail "an export went where none may go"
    held "an export elsewhere is refused"
}

# The record of every act, recomputed from a copy.
verify_ledger() {
    local key entries
    cp -a "$work/state/ledger" "$work/root/root/ledger"
    key=$(moat --json ledger list --most 1 | jq -r .value.key)
    entries=$(moat --json ledger verify /root/ledger --key "$key") || fail "the ledger does not verify: $entries"
    for act in base.import run.start model.ask export.request statement.approve vault.unseal; do
        moat --json ledger list --act $act | jq -e '.value.entries | length > 0' >/dev/null || fail "the ledger has no $act"
    done
    held "a copy of the ledger verifies offline: $(moat ledger verify /root/ledger --key "$key" | tail -n 1)"
}

install_again() {
    local before
    before=$(main_process moatd.service)
    within dpkg --install /root/moat.deb >/dev/null 2>&1 || fail "the package does not install over itself"
    eventually 30 answers || fail "moatd does not answer after it was installed again"
    [ "$(main_process moatd.service)" != "$before" ] || fail "the old moatd runs on"
    grep -q $sources "$work/root/etc/moat/moat.toml" || fail "the site's configuration was overwritten"
    [ "$(run_state "$run")" = done ] || fail "the run is forgotten"
    held "restarted; configuration and runs are kept"
}

remove_package() {
    within dpkg --purge moat >/dev/null 2>&1 || fail "the package does not go away"
    ! processes | grep '^moat' || fail "something of Moat's runs on"
    ! within nft list table inet moat >/dev/null 2>&1 || fail "the packet filter stays behind"
    [ -e "$work/state/catalog.db" ] || fail "removing the package removed the state"
    held "programs, units and packet filter are gone; the state is kept"
}
