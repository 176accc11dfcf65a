use std::net::{Ipv4Addr, Ipv6Addr};

use moat_contracts::Detector;

use super::{Finding, View, is_word};

/// Names that look like a top-level domain and are the end of a file's name.
const FILES: &[&str] = &[
    "png", "jpg", "jpeg", "gif", "svg", "webp", "js", "ts", "css", "html", "json", "py", "md", "txt", "xml",
    "service",
];

/// E-mail addresses as people write them, a subset of RFC 5321's.
pub(super) fn scan_emails(view: View<'_>, found: &mut Vec<Finding>) {
    let mut from = 0;
    for at in memchr::memchr_iter(b'@', view.bytes) {
        let start = local_start(view, from, at);
        let Some(end) = domain_end(view, at + 1) else { continue };
        if start == at {
            continue;
        }
        let domain = view.bytes[at + 1..end].to_ascii_lowercase();
        if !is_reserved(&domain) && &view.bytes[start..at] != b"git" {
            found.push(Finding { detector: Detector::Email, start, end });
            from = end;
        }
    }
}

/// Letters of the Latin script beyond ASCII take two bytes, led by C3 to C9.
const fn is_latin(byte: u8) -> bool {
    matches!(byte, 0xC3..=0xC9)
}

fn local_start(view: View<'_>, from: usize, at: usize) -> usize {
    let mut start = at;
    while start > from && at - start < 64 {
        let byte = view.before(start);
        if is_word(byte) || matches!(byte, b'.' | b'%' | b'+' | b'-') {
            start -= 1;
        } else if byte >= 0x80 && start >= from + 2 && is_latin(view.at(start - 2)) {
            start -= 2;
        } else {
            break;
        }
    }
    start = view.behind_escape(start).min(at);
    while start < at && matches!(view.at(start), b'.' | b'%' | b'+' | b'-') {
        start += 1;
    }
    if view.before(at) == b'.' { at } else { start }
}

/// End of the longest domain from a place: labels parted by dots, the last one of letters.
fn domain_end(view: View<'_>, from: usize) -> Option<usize> {
    let (mut at, mut end, mut labels) = (from, None, 0);
    while at - from < 255 {
        let label = at;
        let mut letters = true;
        loop {
            let byte = view.at(at);
            if is_latin(byte) && view.at(at + 1) >= 0x80 {
                at += 2;
            } else if byte.is_ascii_alphanumeric() || (byte == b'-' && at > label) {
                letters &= byte.is_ascii_alphabetic();
                at += 1;
            } else {
                break;
            }
        }
        if at == label || view.before(at) == b'-' {
            break;
        }
        labels += 1;
        if labels > 1 && letters && (2..=24).contains(&(at - label)) && view.at(at) != b'_' {
            end = Some(at);
        }
        if view.at(at) != b'.' {
            break;
        }
        at += 1;
    }
    end
}

/// Names that RFC 2606 keeps for examples, and those of files.
pub(super) fn is_reserved(domain: &[u8]) -> bool {
    let domain = String::from_utf8_lossy(domain);
    let last = domain.rsplit('.').next().unwrap_or_default();
    let example = ["example.com", "example.org", "example.net", "example.edu"];
    example.iter().any(|name| domain == *name || domain.ends_with(&format!(".{name}")))
        || ["example", "invalid", "test", "localhost", "local"].contains(&last)
        || FILES.contains(&last)
}

/// An IPv4 address from a digit on, or nothing where it is a version, a mask, a network or one of everybody's.
pub(super) fn ipv4(view: View<'_>, start: usize) -> Option<Finding> {
    let (mut at, mut octets) = (start, [0u8; 4]);
    for (index, octet) in octets.iter_mut().enumerate() {
        if index > 0 {
            if view.at(at) != b'.' {
                return None;
            }
            at += 1;
        }
        let digits =
            view.bytes[at.min(view.bytes.len())..].iter().take(4).take_while(|byte| byte.is_ascii_digit());
        let digits = digits.count();
        let number = std::str::from_utf8(&view.bytes[at..at + digits]).ok()?;
        if digits > 1 && number.starts_with('0') {
            return None;
        }
        *octet = number.parse().ok()?;
        at += digits;
    }
    let after = view.at(at);
    let goes_on = is_word(after)
        || after == b'/'
        || (matches!(after, b'.' | b'-') && view.at(at + 1).is_ascii_alphanumeric());
    let address = Ipv4Addr::from(octets);
    let nobodys = address.is_loopback()
        || address.is_documentation()
        || address.is_multicast()
        || address.is_link_local()
        || matches!(octets, [0 | 240..=255, ..] | [.., 0])
        || matches!(octets, [1, 1, 1, 1] | [1, 0, 0, 1] | [8, 8, 8, 8] | [8, 8, 4, 4] | [9, 9, 9, 9]);
    let version = (octets[0] != 10 && octets.iter().all(|octet| *octet < 32)) || after_version(view, start);
    (!goes_on && !nobodys && !version).then_some(Finding { detector: Detector::IpAddress, start, end: at })
}

fn after_version(view: View<'_>, start: usize) -> bool {
    let before = view.bytes[start.saturating_sub(14)..start].to_ascii_lowercase();
    let before = before.trim_ascii_end();
    [
        &b"version"[..],
        b"version:",
        b"ver.",
        b"ver",
        b"release",
        b"==",
        b">=",
        b"<=",
        b"~=",
        b"^",
        b"build",
        b"oid",
    ]
    .iter()
    .any(|word| before.ends_with(word))
}

/// An IPv6 address from a hexadecimal digit on: global or unique-local ones, outside of documentation's range.
pub(super) fn ipv6(view: View<'_>, start: usize) -> Option<Finding> {
    let group = view.bytes[start..].iter().take(5).take_while(|byte| byte.is_ascii_hexdigit()).count();
    if !(3..=4).contains(&group) || view.at(start + group) != b':' {
        return None;
    }
    let holds = |byte: &&u8| byte.is_ascii_hexdigit() || **byte == b':';
    let mut length = view.bytes[start..].iter().take(46).take_while(holds).count();
    while length > 0 && view.at(start + length - 1) == b':' && view.before(start + length - 1) != b':' {
        length -= 1;
    }
    let end = start + length;
    let text = std::str::from_utf8(&view.bytes[start..end]).ok()?;
    let address: Ipv6Addr = text.parse().ok()?;
    let first = address.segments()[0];
    let documentation = first == 0x2001 && address.segments()[1] == 0x0DB8;
    let somebodys = (0x2000..0x4000).contains(&first) || (0xFC00..0xFE00).contains(&first) || first == 0xFE80;
    let sound = somebodys
        && !documentation
        && !is_word(view.at(end))
        && view.at(end) != b'/'
        && !text.ends_with("::");
    sound.then_some(Finding { detector: Detector::IpAddress, start, end })
}

/// Six pairs of hexadecimal digits.
pub(super) fn mac(view: View<'_>, start: usize) -> Option<Finding> {
    let mark = view.at(start + 2);
    let end = start + 17;
    if !matches!(mark, b':' | b'-') || view.bytes.len() < end {
        return None;
    }
    let pairs = &view.bytes[start..end];
    let formed = pairs
        .iter()
        .enumerate()
        .all(|(index, byte)| if index % 3 == 2 { *byte == mark } else { byte.is_ascii_hexdigit() });
    let goes_on = is_word(view.at(end)) || view.at(end) == mark;
    let lettered = mark == b':' || pairs.iter().any(u8::is_ascii_alphabetic);
    let digits = || pairs.iter().filter(|byte| **byte != mark);
    let blank = digits().all(|byte| *byte == b'0') || digits().all(|byte| byte.eq_ignore_ascii_case(&b'f'));
    (formed && !goes_on && lettered && !blank && view.before(start) != mark).then_some(Finding {
        detector: Detector::Mac,
        start,
        end,
    })
}
