# Sourced by scripts/appliance-test: the container's file system, its boot, commands in it, its packets, its end.

machine=moat-$$
# A network of two: this machine, and the container. Static neighbours, so that none has to be asked for.
host_address=10.213.7.1 address=10.213.7.2
# Not among those that moatd.socket admits (RFC 5737).
foreign_address=203.0.113.9
port=8443
leaders=() init='' second='' capture='' cached=''

# can_boot   whether this machine lets containers be booted; `reason` says why not.
can_boot() {
    reason=''
    [ -d /sys/fs/cgroup ] && grep -q cgroup2 /proc/mounts || reason="there is no unified cgroup hierarchy"
    [ -e /dev/loop-control ] || reason="there are no loop devices, for a disk that can be filled"
    unshare --net --mount --pid --fork true 2>/dev/null || reason="namespaces are not granted"
    [ -z "$reason" ]
}

# cache_root   makes Debian's base system, once, and says in `cached` where it lies.
cache_root() {
    local release mirror
    release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    cached=$cache/$release
    if [ ! -d "$cached" ]; then
        # The base archive, not its updates: there release and codename are the same.
        mirror=$(apt-get indextargets --format '$(REPO_URI) $(LABEL) $(CODENAME) $(RELEASE)' 'Created-By: Packages' |
            awk -v release="$release" '$2 == "Debian" && $3 == release && $4 == release { print $1; exit }')
        [ -n "$mirror" ] || skip "apt names no source for Debian $release"
        mkdir -p "$cache"
        rm -rf "$cached.new"
        echo "   making Debian $release, once"
        debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,nftables "$release" "$cached.new" "$mirror" \
            >"$work/debootstrap.log" 2>&1 || { tail -n 20 "$work/debootstrap.log" >&2; skip "debootstrap failed"; }
        mv "$cached.new" "$cached"
    fi
}

# make_root   a fresh copy of the cached file system in $work/root.
make_root() {
    cache_root
    cp -a --reflink=auto "$cached" "$work/root"
    # Moat's state on a disk of its own, small enough to be filled.
    truncate -s 320M "$work/state.img"
    mkfs.ext4 -q -m 0 "$work/state.img"
    mkdir -p "$work/state" "$work/root/var/lib/moat"
    mount -o loop "$work/state.img" "$work/state" 2>/dev/null || skip "disk images cannot be mounted here"
    rmdir "$work/state/lost+found"
}

# boot_machine NAME ROOT ARGUMENT...   boots a container: `init` is its first process, and `leaders` has one more.
boot_machine() {
    # nspawn knows these system calls for ones that a container may not need: the BPF programs behind IPAddressDeny, the
    # keyring, and Landlock.
    local calls="bpf perf_event_open @keyring landlock_create_ruleset landlock_add_rule landlock_restrict_self"
    local name=$1 root=$2 leader tries
    shift 2
    SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 systemd-nspawn --quiet --directory="$root" --machine="$name" --boot \
        --register=no --keep-unit --link-journal=no --console=pipe --capability=all --system-call-filter="$calls" "$@" \
        </dev/null >"$work/$name.console" 2>&1 &
    leader=$!
    leaders+=("$leader")
    for tries in $(seq 300); do
        init=$(awk '{ print $1 }' "/proc/$leader/task/$leader/children" 2>/dev/null || true)
        [ -n "$init" ] && [ -S "/proc/$init/root/run/systemd/private" ] && within systemctl is-system-running 2>/dev/null | grep -qE 'running|degraded' && break
        kill -0 $leader 2>/dev/null || { cat "$work/$name.console" >&2; skip "systemd-nspawn cannot boot a container here"; }
        [ "$tries" -lt 300 ] || { within systemctl list-jobs >&2 || true; fail "the container did not come up"; }
        sleep 0.2
    done
    echo "   $(within systemctl --version | head -n 1), up"
}

# boot   starts the container and captures packets from before anything of Moat's runs.
boot() {
    boot_machine $machine "$work/root" --network-veth --bind="$work/state:/var/lib/moat"
    connect_container
}

# in_network COMMAND...   this machine's programs in the container's network.
in_network() { nsenter --net="/proc/$init/ns/net" "$@"; }

# The container's end of its cable is host0, this machine's is named after the container.
connect_container() {
    local ours=ve-$machine hardware
    # Not by the function: what is to be ended later is tcpdump, not a shell around it.
    nsenter --net="/proc/$init/ns/net" tcpdump -i any -n -U -s 128 -w "$work/packets" 2>"$work/tcpdump.log" &
    capture=$!
    ip address add $host_address/24 dev "$ours"
    ip address add $foreign_address/32 dev "$ours"
    ip link set "$ours" up
    in_network ip address add $address/24 dev host0
    in_network ip link set host0 up
    in_network ip route add $foreign_address/32 dev host0
    hardware=$(ip -json link show "$ours" | jq -r '.[0].address')
    in_network ip neighbour replace $host_address lladdr "$hardware" dev host0 nud permanent
    in_network ip neighbour replace $foreign_address lladdr "$hardware" dev host0 nud permanent
    hardware=$(in_network ip -json link show host0 | jq -r '.[0].address')
    ip neighbour replace $address lladdr "$hardware" dev "$ours" nud permanent
}

# within COMMAND...   runs it in the container, as its root.
within() { nsenter --target "$init" --all -- /usr/bin/env -i PATH=/usr/sbin:/usr/bin HOME=/root TERM=dumb "$@"; }

# moat ARGUMENT...   Moat's command line in the container.
moat() { within moat "$@"; }

# moat_as NAME ARGUMENT...   the same as the user who is that person.
moat_as() {
    local uid
    uid=$(uid_of "$1")
    shift
    within setpriv --reuid="$uid" --clear-groups moat "$@"
}

# journal ARGUMENT...
journal() { within journalctl --boot --no-pager --quiet --output=cat "$@"; }

# main_process UNIT   as the container counts processes.
main_process() { within systemctl show --property=MainPID --value "$1"; }

# numbers   of the container's processes, as this machine counts them.
numbers() {
    local namespace process
    namespace=$(readlink "/proc/$init/ns/pid")
    for process in /proc/[0-9]*; do
        [ "$(readlink "$process/ns/pid" 2>/dev/null)" != "$namespace" ] || echo "${process#/proc/}"
    done
}

# processes   names of the container's processes.
processes() { numbers | while read -r process; do cat "/proc/$process/comm" 2>/dev/null || true; done; }

# outside PROCESS   the number by which this machine knows a process of the container's.
outside() {
    local process
    for process in $(numbers); do
        ! grep -qE "^NSpid:.*[[:space:]]$1\$" "/proc/$process/status" 2>/dev/null || echo "$process"
    done
}

# eventually SECONDS COMMAND...   until it succeeds.
eventually() {
    local seconds=$1 end
    shift
    end=$((SECONDS + seconds))
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.2
    done
}

# finish CODE   shows why it failed, and takes everything away.
finish() {
    trap - EXIT
    if [ "$1" != 0 ] && [ -n "$init" ]; then
        echo "the last of the container's journal:" >&2
        within journalctl --boot --no-pager --lines=60 >&2 || true
    fi
    if [ $keep = 1 ] && [ -n "$init" ]; then
        echo "the container runs on: nsenter --target $init --all; end it with: kill ${leaders[*]}; umount $work/state; rm -r $work"
        exit "$1"
    fi
    [ -z "$capture" ] || kill "$capture" 2>/dev/null || true
    local leader
    for leader in "${leaders[@]}"; do
        ! kill "$leader" 2>/dev/null || wait "$leader" 2>/dev/null || true
    done
    umount "$work/state" 2>/dev/null || true
    rm -rf --one-file-system "$work"
    exit "$1"
}
