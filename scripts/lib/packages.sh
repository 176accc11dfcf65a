# Sourced by the scripts that a person runs: puts what is missing on a Debian machine, having said what and why.

# need_packages YES PACKAGE:WHY...   installs the missing ones; asks first unless YES is 1.
need_packages() {
    local yes=$1 entry missing=()
    shift
    for entry in "$@"; do
        if ! dpkg-query -W -f='${Status}' "${entry%%:*}" 2>/dev/null | grep -q '^install ok installed$'; then
            missing+=("${entry%%:*}")
            printf 'missing: %-24s %s\n' "${entry%%:*}" "${entry#*:}" >&2
        fi
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$yes" != 1 ]; then
        if [ ! -t 0 ]; then
            echo "run it again with --yes to install them, or install them yourself: apt-get install ${missing[*]}" >&2
            return 2
        fi
        local answer
        read -r -p "install them with apt-get? [y/N] " answer
        [[ $answer == [yY]* ]] || return 2
    fi
    local root=()
    [ "$(id -u)" = 0 ] || root=(sudo)
    "${root[@]}" apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

# need_rust   a toolchain that the workspace accepts; Debian's own is too old, so it is not installed from there.
need_rust() {
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    found=$(cargo --version 2>/dev/null | cut -d' ' -f2)
    if [ -z "$found" ] || [ "$(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n 1)" != "$wanted" ]; then
        echo "Rust $wanted or newer is needed, found ${found:-none}: install it with rustup, or from your site's mirror" >&2
        return 2
    fi
}
