# Sourced by scripts/appliance-test: what can be reached from Moat's processes, and what left them.

exposure_inside() {
    local unit tenths
    for unit in moatd.service:3 moat-engine-train@.service:6 moat-engine-serve@.service:6; do
        tenths=${unit#*:}
        within systemd-analyze security --no-pager --threshold="$tenths" "${unit%:*}" >"$work/exposure" ||
            { grep -v '^✓' "$work/exposure" >&2; fail "${unit%:*} is exposed by more than 0.$tenths"; }
        held "$(tail -n 1 "$work/exposure" | grep -o 'for .*' | cut -d' ' -f2-3) at most 0.$tenths"
    done
}

# Of all sockets in the file system moatd sees its own, its engines', and the one on which systemd hears of readiness.
nothing_to_speak_to() {
    local process found
    process=$(outside "$(main_process moatd.service)")
    found=$(nsenter --target "$process" --mount --root find / -type s 2>/dev/null | LC_ALL=C sort)
    grep -qx /run/moat/control.sock <<<"$found" || fail "moatd's sockets cannot be looked at"
    found=$(grep -vxE '/run/moat-engine/(serve|train)\.sock|/run/moat/control\.sock|/run/systemd/notify' <<<"$found" || true)
    [ -z "$found" ] || fail "moatd sees other sockets than Moat's own:"$'\n'"$found"
    held "moatd sees no socket but Moat's own and systemd's for readiness"
    found=$(nsenter --target "$process" --mount --root sh -c 'ls -A / /var/lib /srv /home /root 2>/dev/null' || true)
    ! grep -qE '^(lost\+found|boot|media|opt)$' <<<"$found" || fail "moatd sees the host's root: $found"
    ! nsenter --target "$process" --mount --root test -w $sources || fail "moatd could write its source"
    held "moatd sees its own root, and its source read-only"
}

# The process has a network of its own, with a loopback that is down and through which nothing ever went.
alone() {
    local process=$1 interfaces
    [ "$(readlink "/proc/$process/ns/net")" != "$(readlink "/proc/$init/ns/net")" ] || fail "$2 is in the host's network"
    interfaces=$(awk 'NR > 2 { sub(":", "", $1); print $1, $2 + $10 }' "/proc/$process/net/dev")
    [ "$interfaces" = "lo 0" ] || fail "$2 has other interfaces, or sent something: $interfaces"
}

empty_networks() {
    alone "$(outside "$(main_process moatd.service)")" moatd
    held "moatd's own network has nothing but a loopback that nothing passed"
}

# reach ADDRESS   tries a TCP connection from that address of this machine.
reach() {
    python3 - "$1" $address $port <<'PYTHON'
import socket, sys
with socket.socket() as caller:
    caller.settimeout(3)
    caller.bind((sys.argv[1], 0))
    caller.connect((sys.argv[2], int(sys.argv[3])))
PYTHON
}

# asked ARGUMENT...   what the port answers to a caller that trusts Moat's own authority.
asked() {
    curl --silent --max-time 10 --cacert "$work/state/tls/authority.pem" --connect-to "localhost:$port:$address:$port" \
        "$@" "https://localhost:$port/api/v1/health"
}

well() { asked | jq -e '.sealed == false and .wanted == null'; }

the_port() {
    eventually 20 well || fail "the port does not say that Moat is well: $(asked || true)"
    held "the port answers over TLS, under Moat's own authority: Moat is open and well"
    ! asked --tls-max 1.2 >/dev/null || fail "the port speaks an older TLS than 1.3"
    ! curl --silent --max-time 10 --output /dev/null "http://$address:$port/" || fail "the port answers without TLS"
    held "it speaks nothing below TLS 1.3"
    ! reach $foreign_address 2>/dev/null || fail "the port can be reached from elsewhere"
    held "from outside the private networks it cannot be reached"
}

# The canary's tries so far: those of moatd, and of engines.
tries() { moat --json status | jq '[.value.canary.ways[][0]] | add // 0'; }

have_tried() { [ "$(tries)" -gt 0 ]; }

canary_tried() {
    local open
    eventually 90 have_tried || fail "the canary tried nothing"
    open=$(moat --json status | jq -r '.value | [.canary.ways | to_entries[] | select(.value[1] > 0) | .key], .alarm | select(. != null and . != [])')
    [ -z "$open" ] || fail "the canary got out, or raised an alarm: $open"
    held "canaries tried $(moat --json status | jq '.value.canary.ways | length') ways out, $(tries) times in all; none was open"
}

alarmed() { moat --json status | jq -e '.value | .seal.sealed and .alarm != null'; }
unsealed() { moat --json status | jq -e '.value.seal.sealed | not'; }

# A hole as a careless administrator makes it: the bus, through which other programs can be asked for anything.
hole_is_found() {
    local hole=$work/root/etc/systemd/system/moatd.service.d/hole.conf
    printf '[Service]\nInaccessiblePaths=\nBindReadOnlyPaths=/run/dbus\n' >"$hole"
    within systemctl daemon-reload
    within systemctl restart moatd.service || fail "moatd does not start with the hole"
    eventually 75 alarmed || fail "the bus could be spoken to, and no canary found it"
    held "with the bus within reach moatd sealed itself and raised the alarm: $(moat --json status | jq -r .value.alarm)"
    rm "$hole"
    within systemctl daemon-reload
    within systemctl restart moatd.service
    eventually 30 unsealed || fail "moatd stays sealed once the hole is closed"
    held "with the hole closed it opened again"
}

# Without the key Moat shows how it stands, and does nothing else.
sealed_without_key() {
    mv "$work/root/etc/credstore.encrypted/moat-kek" "$work/kek"
    within systemctl restart moatd.service || fail "moatd does not start without its key"
    eventually 30 answers || fail "moatd does not answer without its key"
    ! unsealed >/dev/null || fail "moatd is open without its key"
    ! moat run list >/dev/null 2>&1 || fail "a sealed moatd shows runs"
    [ "$(asked --insecure | jq .sealed)" = true ] || fail "the port does not say that Moat is sealed"
    held "without the key moatd is sealed: it says so, also on the port, and refuses everything else"
    mv "$work/kek" "$work/root/etc/credstore.encrypted/moat-kek"
    within systemctl restart moatd.service
    eventually 30 unsealed || fail "moatd stays sealed with its key"
    [ "$(run_state "$run")" = done ] || fail "the run is forgotten"
    held "with the key it opened again"
}

# Strings that were planted in the documents are on the raw disk of the state, in logs or temporary files: nowhere.
nothing_in_plain() {
    local places=("$work/state.img") place
    sync
    for place in var/log var/tmp tmp run root; do
        [ ! -e "$work/root/$place" ] || places+=("$work/root/$place")
    done
    grep -rqaFf "$work/planted" "$work/root$sources" || fail "nothing was planted"
    place=$(grep -rlaFf "$work/planted" --exclude-dir=documentation "${places[@]}" || true)
    [ -z "$place" ] || fail "customers' text is in plain in $place"
    ! journal | grep -Ff "$work/planted" >/dev/null || fail "customers' text is in the journal"
    held "none of $(wc -l <"$work/planted") planted strings is on the state's raw disk, in a log or a temporary file"
}

every_packet() {
    local others
    sleep 1
    kill "$capture"
    wait "$capture" 2>/dev/null || true
    capture=''
    # What the kernel says of itself on a new cable is not Moat's: that the address is its own (neighbour discovery,
    # RFC 4861), and which groups it listens to (RFC 3810, RFC 3376).
    others=$(tcpdump -n -r "$work/packets" "not (tcp port $port) and not arp and not igmp and not \
        (icmp6 and (ip6[40] == 133 or ip6[40] == 135 or ip6[40] == 136)) and not (ip6 proto 0)" 2>/dev/null)
    [ -z "$others" ] || fail "packets other than those of the port:"$'\n'"$others"
    held "$(tcpdump -n -r "$work/packets" "tcp port $port" 2>/dev/null | wc -l) packets of the port, and no other, on any interface"
}

refused() { within nft --json list counter inet moat refused | jq '.nftables[] | select(.counter).counter.packets'; }

# The fence counted nothing until now, and does count: what another user sends passes, what Moat's users send is dropped.
fence_counts() {
    local user heard
    [ "$(refused)" = 0 ] || fail "the packet filter had to drop $(refused) packets"
    held "the packet filter had nothing to drop"
    for user in nobody moat moat-engine; do
        in_network timeout 10 tcpdump -i host0 -n -c 1 "udp port 9" >"$work/heard" 2>/dev/null &
        heard=$!
        sleep 1
        within setpriv --reuid=$user --clear-groups bash -c "echo >/dev/udp/$host_address/9" 2>/dev/null || true
        sleep 1
        kill $heard 2>/dev/null || true
        wait $heard 2>/dev/null || true
        if [ $user = nobody ]; then [ -s "$work/heard" ] || fail "a packet that was sent was not captured"
        else [ ! -s "$work/heard" ] || fail "a packet of user $user left"; fi
    done
    [ "$(refused)" = 2 ] || fail "the packet filter counted $(refused) packets, not 2"
    held "packets of users moat and moat-engine are dropped and counted, those of others captured"
}
