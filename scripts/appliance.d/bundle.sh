# Sourced by scripts/appliance-test: a bundle of the package under test, carried in as one file.

# make_bundle NUMBER EXPIRES   as $work/root/root/NUMBER.bundle, signed by two of three.
make_bundle() {
    scripts/bundle --number "$1" --expires "$2" --keys "$work/release-keys.json" --key "$work/ada.key" --key "$work/cleo.key" \
        --packages "$work/packages" --moat "$programs/moat" --out "$work/root/root/$1.bundle" >"$work/bundle.log" 2>&1 ||
        { cat "$work/bundle.log" >&2; fail "release $1 cannot be made"; }
}

# refuses FILE WORDS   the bundle is not installed, for this reason, and what was recorded stays.
refuses() {
    local before said code=0
    before=$(sha256sum "$work/root/var/lib/moat-bundles/release-keys.json" && jq .release "$work/root/var/lib/moat-bundles/installed.json")
    said=$(moat --json bundle install "/root/$1" 2>/dev/null) || code=$?
    [ $code = 1 ] || fail "$1 was not refused, but ended with $code: $said"
    jq -r .value.message <<<"$said" | grep -q "$2" || fail "$1 was refused for another reason: $said"
    [ "$before" = "$(sha256sum "$work/root/var/lib/moat-bundles/release-keys.json" && jq .release "$work/root/var/lib/moat-bundles/installed.json")" ] ||
        fail "$1 was refused, and changed what is recorded"
}

bundle_installs() {
    local key before later flipped public=()
    for key in ada ben cleo; do
        "$programs/moat" bundle key create "$work/$key.key" >/dev/null || fail "no release key can be made"
        public+=("$work/$key.key.pub")
    done
    "$programs/moat" bundle keys "${public[@]}" --version 1 --to "$work/release-keys.json" >/dev/null || fail "no release keys can be made"
    for key in ada cleo; do "$programs/moat" bundle sign "$work/release-keys.json" --key "$work/$key.key" >/dev/null; done
    later=$(date --utc --date '+1 year' +%F)
    make_bundle 7 "$later"
    ! moat bundle verify /root/7.bundle >/dev/null 2>&1 || fail "a bundle was verified without release keys"
    # As a site does whose package brought none.
    install -m 644 "$work/release-keys.json" "$work/root/usr/share/moat/release-keys.json"
    [ "$(moat --json bundle verify /root/7.bundle 2>/dev/null | jq -r .value.standing)" = first ] || fail "a sound bundle is not taken for one"

    before=$(main_process moatd.service)
    moat --json bundle install /root/7.bundle >"$work/bundle.json" 2>"$work/bundle.log" ||
        { cat "$work/bundle.json" "$work/bundle.log" >&2; fail "the bundle does not install"; }
    jq -e '.value.number == 7 and .value.standing == "first"' "$work/bundle.json" >/dev/null || fail "another release was installed: $(cat "$work/bundle.json")"
    jq -e '.release.number == 7 and .release.whole' "$work/root/var/lib/moat-bundles/installed.json" >/dev/null || fail "the release is not recorded"
    [ "$(stat --format '%a %u' "$work/root/var/lib/moat-bundles")" = "700 0" ] || fail "others than root reach what is recorded"
    eventually 30 answers || fail "moatd does not answer after the bundle was installed"
    [ "$(main_process moatd.service)" != "$before" ] || fail "the old moatd runs on"
    grep -q $sources "$work/root/etc/moat/moat.toml" || fail "the site's configuration was overwritten"
    held "installed without a network: release 7, moat $(jq -r .value.version "$work/bundle.json"); moatd runs it"
    moat --json base import /var/lib/moat-inbox/moat-starter --name carried-in >/dev/null || fail "the base that was carried in cannot be imported"
    [ -s "$work/root/var/lib/moat-bundles/7/licences/moat.txt" ] || fail "the licences are not kept"
    held "the base that was carried in is imported; licences and SBOM are kept"
    moat bundle install /root/7.bundle >/dev/null 2>&1 || fail "the same bundle does not install again"
    eventually 30 answers || fail "moatd does not answer after the bundle was installed again"

    make_bundle 6 "$later"
    refuses 6.bundle "moat does not go back"
    make_bundle 8 "$(date --utc --date "@$(($(git log -1 --format=%ct) + 1))" +%FT%TZ)"
    refuses 8.bundle "the bundle expired"
    make_bundle 9 "$later"
    flipped=$(($(stat --format %s "$work/root/root/9.bundle") / 2))
    printf '%b' "\\x$(printf '%02x' $(($(od -An -tu1 -j "$flipped" -N 1 "$work/root/root/9.bundle") ^ 1)))" |
        dd of="$work/root/root/9.bundle" bs=1 seek="$flipped" conv=notrunc status=none
    refuses 9.bundle "in the bundle"
    head --bytes=-1 "$work/root/root/7.bundle" >"$work/root/root/cut.bundle"
    refuses cut.bundle "it was cut off"
    held "an older, an expired, a changed and a cut bundle are refused"
    rm "$work"/root/root/*.bundle
}
