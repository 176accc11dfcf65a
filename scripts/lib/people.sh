# Sourced: plays people at a Moat, since exports take two of them. Each has a file in $people with name, user of the
# machine, password and secret of the codes.

# set_up_people NAME:ROLES:UID...   makes the first accounts, through a function `moat`.
set_up_people() {
    (umask 077 && mkdir -p "$people")
    local account name uid made
    for account in "$@"; do
        (umask 077 && head -c 18 /dev/urandom | base64 >"$people/${account%%:*}.password")
    done
    made=$(for account in "$@"; do cat "$people/${account%%:*}.password"; done | moat --json account set-up "$@") || { echo "$made" >&2; return 1; }
    for account in "$@"; do
        name=${account%%:*} uid=${account##*:}
        echo "$uid" >"$people/$name.uid"
        (umask 077 && jq -r --arg name "$name" '.value[] | select(.name == $name) | .uri | capture("secret=(?<s>[A-Z2-7]+)").s' \
            <<<"$made" >"$people/$name.secret")
    done
}

# uid_of NAME
uid_of() { cat "$people/$1.uid"; }

# proof_of NAME   password and code, two lines. A code counts once; those of the 30 seconds before and after count too.
proof_of() {
    local now step used
    used=$(cat "$people/$1.step" 2>/dev/null || echo 0)
    while :; do
        now=$(($(date +%s) / 30))
        step=$((used >= now - 1 ? used + 1 : now - 1))
        [ "$step" -gt $((now + 1)) ] || break
        sleep 1
    done
    echo "$step" >"$people/$1.step"
    cat "$people/$1.password"
    oathtool --totp --base32 --now "@$((step * 30))" "$(cat "$people/$1.secret")"
}
