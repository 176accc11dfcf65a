use aho_corasick::{AhoCorasick, AhoCorasickKind};
use moat_contracts::Detector;

use super::{Finding, View, is_word};

/// A credential that its issuer begins with a fixed text.
struct Issued {
    detector: Detector,
    prefix: &'static str,
    /// Characters besides letters and digits that may follow.
    also: &'static [u8],
    least: usize,
    most: usize,
}

const fn issued(
    detector: Detector,
    prefix: &'static str,
    also: &'static [u8],
    least: usize,
    most: usize,
) -> Issued {
    Issued { detector, prefix, also, least, most }
}

/// Formats as the issuers document them.
const ISSUED: &[Issued] = &[
    issued(Detector::AwsKey, "AKIA", b"", 16, 16),
    issued(Detector::AwsKey, "ASIA", b"", 16, 16),
    issued(Detector::AwsKey, "ABIA", b"", 16, 16),
    issued(Detector::AwsKey, "ACCA", b"", 16, 16),
    issued(Detector::GithubToken, "ghp_", b"", 36, 255),
    issued(Detector::GithubToken, "gho_", b"", 36, 255),
    issued(Detector::GithubToken, "ghu_", b"", 36, 255),
    issued(Detector::GithubToken, "ghs_", b"", 36, 255),
    issued(Detector::GithubToken, "ghr_", b"", 36, 255),
    issued(Detector::GithubToken, "github_pat_", b"_", 50, 255),
    issued(Detector::GitlabToken, "glpat-", b"_-.", 20, 255),
    issued(Detector::GitlabToken, "gldt-", b"_-", 20, 255),
    issued(Detector::GitlabToken, "glrt-", b"_-.", 20, 255),
    issued(Detector::GitlabToken, "glptt-", b"_-", 20, 255),
    issued(Detector::GitlabToken, "glcbt-", b"_-", 20, 255),
    issued(Detector::GitlabToken, "glsoat-", b"_-", 20, 255),
    issued(Detector::SlackToken, "xoxb-", b"-", 20, 255),
    issued(Detector::SlackToken, "xoxp-", b"-", 20, 255),
    issued(Detector::SlackToken, "xoxa-", b"-", 20, 255),
    issued(Detector::SlackToken, "xoxr-", b"-", 20, 255),
    issued(Detector::SlackToken, "xoxs-", b"-", 20, 255),
    issued(Detector::SlackToken, "xapp-", b"-", 20, 255),
    issued(Detector::SlackToken, "hooks.slack.com/services/", b"/", 30, 255),
    issued(Detector::GoogleApiKey, "AIza", b"_-", 35, 35),
    issued(Detector::GoogleApiKey, "GOCSPX-", b"_-", 28, 28),
    issued(Detector::GoogleApiKey, "ya29.", b"_-", 30, 2048),
    issued(Detector::StripeKey, "sk_live_", b"", 16, 255),
    issued(Detector::StripeKey, "rk_live_", b"", 16, 255),
    issued(Detector::StripeKey, "sk_test_", b"", 16, 255),
    issued(Detector::StripeKey, "rk_test_", b"", 16, 255),
    issued(Detector::StripeKey, "whsec_", b"", 32, 255),
    issued(Detector::NpmToken, "npm_", b"", 36, 36),
    issued(Detector::PypiToken, "pypi-AgE", b"_-", 50, 1024),
    issued(Detector::ModelApiKey, "sk-ant-", b"_-", 32, 255),
    issued(Detector::ModelApiKey, "sk-proj-", b"_-", 32, 255),
    issued(Detector::ModelApiKey, "sk-", b"", 40, 64),
    issued(Detector::ModelApiKey, "hf_", b"", 34, 40),
];

/// Words of names that secrets are assigned to.
const NAMES: &[&str] = &[
    "password",
    "passwort",
    "passwd",
    "passphrase",
    "kennwort",
    "pwd",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "access_key",
    "access-key",
    "accesskey",
    "auth_key",
    "private_key",
    "account_key",
    "accountkey",
    "credential",
];

/// A name that goes on with one of these tells about a secret and does not hold it.
const ABOUT: &[&str] = &[
    "hash",
    "sha",
    "digest",
    "name",
    "url",
    "uri",
    "path",
    "file",
    "type",
    "count",
    "len",
    "size",
    "expir",
    "ttl",
    "field",
    "header",
    "policy",
    "prefix",
    "regex",
    "pattern",
    "class",
    "algorithm",
    "length",
    "limit",
    "version",
    "arn",
    "date",
    "time",
    "_id",
    "usage",
    "label",
    "title",
    "index",
    "izer",
    "ize",
];

const SCHEMES: &[&str] = &[
    "postgres",
    "postgresql",
    "mysql",
    "mariadb",
    "mongodb",
    "mongodb+srv",
    "redis",
    "rediss",
    "amqp",
    "amqps",
    "mssql",
    "sqlserver",
    "oracle",
    "clickhouse",
    "cassandra",
    "couchdb",
    "neo4j",
    "bolt",
    "db2",
    "cockroachdb",
];

const PLACEHOLDERS: &[&str] = &[
    "example",
    "changeme",
    "change-me",
    "change_me",
    "placeholder",
    "your",
    "xxxx",
    "****",
    "....",
    "dummy",
    "redacted",
    "todo",
    "sample",
    "foobar",
    "insert",
    "replace",
    "notreal",
    "not-a-real",
    "fake",
    "abcdef",
    "anoncvs",
    "123456",
];

/// Where in the text of patterns something begins.
#[derive(Clone, Copy, Debug)]
enum Trigger {
    Issued(usize),
    Pem,
    Url,
    Jwt,
    Bearer,
    Basic,
    Name,
}

/// Finds credentials: one automaton over all that they begin with, then an exact look at each place.
#[derive(Clone, Debug)]
pub(super) struct Secrets {
    automaton: Option<AhoCorasick>,
    triggers: Vec<Trigger>,
}

impl Secrets {
    pub(super) fn new() -> Self {
        let mut patterns: Vec<&str> = ISSUED.iter().map(|issued| issued.prefix).collect();
        let mut triggers: Vec<Trigger> = (0..ISSUED.len()).map(Trigger::Issued).collect();
        let fixed = [
            ("-----BEGIN ", Trigger::Pem),
            ("://", Trigger::Url),
            ("eyJ", Trigger::Jwt),
            ("Bearer ", Trigger::Bearer),
            ("Basic ", Trigger::Basic),
        ];
        for (pattern, trigger) in fixed {
            patterns.push(pattern);
            triggers.push(trigger);
        }
        patterns.extend(NAMES);
        triggers.extend(NAMES.iter().map(|_| Trigger::Name));
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::DFA))
            .build(&patterns);
        // Building fails only for patterns beyond 32-bit sizes; the tests hold that it does not.
        Self { automaton: automaton.ok(), triggers }
    }

    pub(super) fn scan(&self, view: View<'_>, found: &mut Vec<Finding>) {
        let Some(automaton) = &self.automaton else { return };
        for hit in automaton.find_overlapping_iter(view.bytes) {
            let finding = match self.triggers[hit.pattern().as_usize()] {
                Trigger::Issued(index) => issued_at(view, &ISSUED[index], hit.start()),
                Trigger::Pem => pem(view, hit.start(), hit.end()),
                Trigger::Url => url(view, hit.start(), hit.end()),
                Trigger::Jwt => jwt(view, hit.start()),
                Trigger::Bearer => bearer(view, hit.start(), hit.end()),
                Trigger::Basic => basic(view, hit.start(), hit.end()),
                Trigger::Name => assignment(view, hit.start(), hit.end()),
            };
            found.extend(finding);
        }
    }
}

/// Length of the run of bytes from a place for which `holds`, at most `most`.
fn run(view: View<'_>, from: usize, most: usize, holds: impl Fn(u8) -> bool) -> usize {
    view.bytes[from.min(view.bytes.len())..].iter().take(most).take_while(|&&byte| holds(byte)).count()
}

fn finding(detector: Detector, start: usize, end: usize) -> Finding {
    Finding { detector, start, end }
}

fn issued_at(view: View<'_>, issued: &Issued, start: usize) -> Option<Finding> {
    let from = start + issued.prefix.len();
    // The automaton ignores case; these do not.
    if !view.bytes[start..].starts_with(issued.prefix.as_bytes()) || !view.begins(start) {
        return None;
    }
    let holds = |byte: u8| byte.is_ascii_alphanumeric() || issued.also.contains(&byte);
    let mut length = run(view, from, issued.most + 1, holds);
    while length > 0 && issued.also.contains(&view.at(from + length - 1)) {
        length -= 1;
    }
    let value = &view.bytes[from..from + length];
    let fits = (issued.least..=issued.most).contains(&length) && !is_word(view.at(from + length));
    let upper = issued.detector != Detector::AwsKey || !value.iter().any(u8::is_ascii_lowercase);
    let mixed = value.iter().any(u8::is_ascii_digit) || length >= 30;
    let sound = fits && upper && mixed && entropy(value) >= 2.8 && !is_placeholder(value);
    sound.then(|| finding(issued.detector, start, from + length))
}

/// A PEM block (RFC 7468) whose label says private key, to its end line or as far as its lines of base64 go.
fn pem(view: View<'_>, start: usize, from: usize) -> Option<Finding> {
    let label =
        run(view, from, 48, |byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b' ');
    let title = &view.bytes[from..from + label];
    let body = from + label + 5;
    if !contains(title, b"PRIVATE KEY") || !view.bytes[from + label..].starts_with(b"-----") {
        return None;
    }
    let window = &view.bytes[body..view.bytes.len().min(body + 32 * 1024)];
    let ended = memchr::memmem::find(window, b"-----").filter(|&at| window[at + 5..].starts_with(b"END "));
    let end = if let Some(at) = ended {
        let tail = run(view, body + at + 5, 64, |byte| byte.is_ascii_uppercase() || byte == b' ');
        let tail = body + at + 5 + tail;
        tail + run(view, tail, 5, |byte| byte == b'-')
    } else {
        let mut end = body;
        loop {
            let mut next = end + run(view, end, 80, |byte| byte.is_ascii_whitespace());
            if view.at(next) == b'\\' && matches!(view.at(next + 1), b'n' | b'r') {
                next += 2;
            }
            let line = run(view, next, 32 * 1024, is_base64);
            if line < 16 && (line == 0 || view.before(next + line) != b'=') {
                break;
            }
            end = next + line;
        }
        end
    };
    let key = view.bytes[body..end].iter().filter(|byte| is_base64(**byte)).count();
    let random = entropy(&view.bytes[body..end]) >= 3.5;
    (key >= 40 && random).then(|| finding(Detector::PrivateKey, start, end))
}

const fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}

const fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

/// User and password of a URL (RFC 3986, userinfo).
fn url(view: View<'_>, colon: usize, from: usize) -> Option<Finding> {
    let scheme = view.bytes[..colon].iter().rev().take(24);
    let scheme =
        scheme.take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'.' | b'-')).count();
    let scheme = String::from_utf8_lossy(&view.bytes[colon - scheme..colon]).to_lowercase();
    let ends = |byte: u8| {
        byte.is_ascii_whitespace()
            || matches!(byte, b'/' | b'?' | b'#' | b'"' | b'\'' | b'<' | b'>' | b'\\' | b'`')
    };
    let length = run(view, from, 512, |byte| !ends(byte));
    let authority = &view.bytes[from..from + length];
    let at = memchr::memrchr(b'@', authority)?;
    let split = memchr::memchr(b':', &authority[..at])?;
    let password = &authority[split + 1..at];
    let host = authority[at + 1..].split(|byte| *byte == b':').next().unwrap_or_default();
    let sound = !scheme.is_empty()
        && password.len() >= 3
        && !is_placeholder(password)
        && !is_word_for(password)
        && !authority[..at].iter().any(|byte| matches!(byte, b'[' | b']'))
        && !super::network::is_reserved(&host.to_ascii_lowercase());
    let database = SCHEMES.iter().any(|known| scheme == *known || scheme.starts_with(&format!("{known}+")));
    let detector = if database { Detector::DatabaseUrl } else { Detector::UrlCredentials };
    sound.then(|| finding(detector, from, from + at))
}

/// Whether a value is only a word that stands for a password.
fn is_word_for(value: &[u8]) -> bool {
    let value = value.to_ascii_lowercase();
    [
        &b"pass"[..],
        b"password",
        b"passwd",
        b"pwd",
        b"secret",
        b"token",
        b"passwort",
        b"pw",
        b"mypassword",
        b"port",
    ]
    .contains(&value.as_slice())
}

fn jwt(view: View<'_>, start: usize) -> Option<Finding> {
    if !view.bytes[start..].starts_with(b"eyJ") || !view.begins(start) {
        return None;
    }
    let mut end = start;
    for (part, least) in [8, 8, 0].into_iter().enumerate() {
        if part > 0 {
            if view.at(end) != b'.' {
                return None;
            }
            end += 1;
        }
        let length = run(view, end, 8192, is_base64url);
        if length < least {
            return None;
        }
        end += length;
    }
    Some(finding(Detector::Jwt, start, end))
}

fn bearer(view: View<'_>, start: usize, from: usize) -> Option<Finding> {
    let holds = |byte: u8| is_base64url(byte) || matches!(byte, b'.' | b'~' | b'+' | b'/' | b'=');
    let length = run(view, from, 4096, holds);
    let value = &view.bytes[from..from + length];
    let mixed = value.iter().any(u8::is_ascii_digit) && value.iter().any(u8::is_ascii_alphabetic);
    let sound =
        view.begins(start) && length >= 16 && mixed && entropy(value) >= 3.0 && !is_placeholder(value);
    sound.then(|| finding(Detector::AuthHeader, from, from + length))
}

/// The base64 of `user:password` (RFC 7617).
fn basic(view: View<'_>, start: usize, from: usize) -> Option<Finding> {
    let length = run(view, from, 1024, is_base64);
    let value = &view.bytes[from..from + length];
    let decoded = if view.begins(start) && length >= 8 { base64(value)? } else { return None };
    let printable = decoded.iter().all(|byte| (b' '..0x7F).contains(byte));
    let pair =
        decoded.iter().position(|&byte| byte == b':').is_some_and(|at| at > 0 && at + 1 < decoded.len());
    (printable && pair).then(|| finding(Detector::AuthHeader, from, from + length))
}

/// Decodes base64 with the standard alphabet; `None` where it is none.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let mut bytes = Vec::with_capacity(digits.len());
    let (mut bits, mut held) = (0u32, 0);
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xFFFF;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    Some(bytes)
}

/// The value in `name = value`, `name: value`, `"name": "value"` and their like, where the value looks random.
fn assignment(view: View<'_>, name: usize, from: usize) -> Option<Finding> {
    let rest = run(view, from, 24, is_base64url);
    let suffix = view.bytes[from..from + rest].to_ascii_lowercase();
    if ABOUT.iter().any(|about| contains(&suffix, about.as_bytes())) {
        return None;
    }
    let mut at = from + rest;
    // A label of an earlier redaction, such as `[GITHUB_TOKEN_1]`, is a name of nothing.
    let word = view.bytes[..name].iter().rev().take(32).take_while(|&&byte| is_word(byte)).count();
    if view.before(name - word) == b'[' && view.at(at) == b']' {
        return None;
    }
    at += run(view, at, 3, |byte| matches!(byte, b'"' | b'\'' | b'`' | b']' | b'\\' | b'*'));
    at += run(view, at, 4, |byte| matches!(byte, b' ' | b'\t'));
    let separator = run(view, at, 3, |byte| matches!(byte, b'=' | b':' | b'>'));
    if !matches!(&view.bytes[at..at + separator], b"=" | b":" | b":=" | b"=>") {
        return None;
    }
    at += separator;
    at += run(view, at, 4, |byte| matches!(byte, b' ' | b'\t'));
    at += usize::from(view.escaped && view.at(at) == b'\\' && view.at(at + 1) == b'"');
    let quote = view.at(at);
    if matches!(quote, b'"' | b'\'' | b'`') {
        quoted_value(view, at + 1, quote)
    } else {
        bare_value(view, at)
    }
}

fn quoted_value(view: View<'_>, start: usize, quote: u8) -> Option<Finding> {
    let mut end = start;
    while end < view.bytes.len().min(start + 300) && view.at(end) != quote && view.at(end) != b'\n' {
        // An escaped quote ends the value where the text itself is quoted once more.
        if view.at(end) == b'\\' && view.at(end + 1) == b'"' && view.at(start.saturating_sub(2)) == b'\\' {
            break;
        }
        end += if view.at(end) == b'\\' { 2 } else { 1 };
    }
    let value = view.bytes.get(start..end)?;
    let sound = view.at(end) != b'\n' && end < view.bytes.len() && looks_random(value);
    (sound && std::str::from_utf8(value).is_ok()).then(|| finding(Detector::Secret, start, end))
}

fn bare_value(view: View<'_>, start: usize) -> Option<Finding> {
    let ends = |byte: u8| {
        byte.is_ascii_whitespace()
            || byte >= 0x80
            || matches!(
                byte,
                b',' | b';' | b'"' | b'\'' | b'`' | b'<' | b'>' | b'(' | b')' | b'{' | b'}' | b'\\' | b'|'
            )
    };
    let mut length = run(view, start, 300, |byte| !ends(byte));
    while length > 0 && matches!(view.at(start + length - 1), b'.' | b':' | b'?') {
        length -= 1;
    }
    let value = &view.bytes[start..start + length];
    // Without quotes it may as well be a name, a path or a call.
    let called = matches!(view.at(start + length), b'(' | b'{' | b'<');
    let digits = value.iter().filter(|byte| byte.is_ascii_digit()).count();
    let name =
        value.iter().all(|&byte| is_word(byte) || matches!(byte, b'.' | b'-' | b'/' | b':' | b'$' | b'&'));
    let dotted = name && value.iter().any(|byte| matches!(byte, b'.' | b'/' | b':' | b'$' | b'&'));
    let random = looks_random(value) && (digits >= 3 || !name) && !dotted;
    (random && !called).then(|| finding(Detector::Secret, start, start + length))
}

/// Whether a value is more likely drawn or made up as a secret than written as a word.
fn looks_random(value: &[u8]) -> bool {
    let has = |holds: fn(&u8) -> bool| value.iter().any(holds);
    let (lower, upper) = (has(u8::is_ascii_lowercase), has(u8::is_ascii_uppercase));
    let (digit, sign) = (has(u8::is_ascii_digit), has(|byte| byte.is_ascii_punctuation()));
    let mixed = (digit && (lower || upper)) || (lower && upper && sign);
    let least = if value.len() >= 20 { 3.0 } else { 2.5 };
    value.len() >= 8
        && mixed
        && !value.starts_with(b"/")
        && !has(|byte| byte.is_ascii_whitespace())
        && entropy(value) >= least
        && !is_placeholder(value)
}

fn is_placeholder(value: &[u8]) -> bool {
    let lower = value.to_ascii_lowercase();
    PLACEHOLDERS.iter().any(|known| contains(&lower, known.as_bytes()))
        || lower.starts_with(b"test")
        || lower.iter().any(|byte| matches!(byte, b'<' | b'>' | b'[' | b']' | b'{' | b'}'))
        || lower.starts_with(b"$")
        || lower.starts_with(b"%")
        || lower.iter().all(|byte| *byte == b'*')
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}

/// Shannon's entropy of the bytes, in bits for each.
fn entropy(value: &[u8]) -> f64 {
    let mut counts = [0u32; 256];
    value.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    let total = value.len() as f64;
    let shares = counts.iter().filter(|count| **count > 0).map(|count| f64::from(*count) / total);
    shares.map(|share| -share * share.log2()).sum()
}
