# Sourced: what a script needs that looks at Moat with a browser.

# need_browser YES   Debian's Chromium, and the two packages that drive it and judge accessibility, in $browser.
need_browser() {
    local need=("chromium:the browser" "oathtool:shows the codes of the people who sign in" "jq:reads moat's JSON" \
        "fonts-dejavu-core:letters for the browser")
    command -v node >/dev/null || need+=("nodejs:runs the walk through the pages")
    command -v npm >/dev/null || need+=("npm:fetches what drives the browser")
    need_packages "$1" "${need[@]}"
    browser=${MOAT_BROWSER:-${XDG_CACHE_HOME:-$HOME/.cache}/moat/browser}
    local wanted=(playwright-core@1.65.1 axe-core@4.14.1)
    if [ "$(cat "$browser/installed" 2>/dev/null)" != "${wanted[*]}" ]; then
        mkdir -p "$browser"
        npm install --prefix "$browser" --no-save --ignore-scripts --no-audit --no-fund --silent "${wanted[@]}"
        echo "${wanted[*]}" >"$browser/installed"
    fi
    export NODE_PATH=$browser/node_modules MOAT_CHROMIUM=${MOAT_CHROMIUM:-/usr/bin/chromium}
}

# need_documents   PostgreSQL's documentation, as the demo uses it; its folder in $shipped.
need_documents() {
    local package=postgresql-doc-15
    apt-cache show $package >/dev/null 2>&1 || dpkg -s $package >/dev/null 2>&1 || package=postgresql-doc
    need_packages "$1" "$package:the documents: PostgreSQL's documentation"
    shipped=$(find /usr/share/doc -maxdepth 2 -path '*/postgresql-doc*/html' -not -empty | sort -V | tail -n 1)
    [ -n "$shipped" ] || { echo "PostgreSQL's documentation is not under /usr/share/doc: dpkg may be set to leave out documentation" >&2; return 2; }
}
