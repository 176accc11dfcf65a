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

the_port() {
    reach $host_address 2>/dev/null || fail "the port cannot be reached from the site's network"
    held "port $port is reached from the site's network"
    ! reach $foreign_address 2>/dev/null || fail "the port can be reached from elsewhere"
    held "from elsewhere it is not"
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
