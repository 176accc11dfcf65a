use hyper::header::{CONTENT_TYPE, COOKIE, HOST, HeaderMap, ORIGIN};
use moat_contracts::Digest;
use zeroize::{Zeroize, Zeroizing};

/// The cookie of a session. The prefix makes the browser hold it to this host, to TLS and to the whole site.
pub(crate) const SESSION: &str = "__Host-moat";
/// The cookie that a form carries too, where there is no session yet.
pub(crate) const STRANGER: &str = "__Host-moat-form";
/// The cookie of the page that somebody wanted to see before signing in.
pub(crate) const BACK: &str = "__Host-moat-back";
/// The field of the token in every form.
pub(crate) const TOKEN: &str = "token";

/// What a form sent. Its values are wiped when it is dropped: there may be a password among them.
#[derive(Default)]
pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    /// Reads what browsers send (`application/x-www-form-urlencoded`); a field that is no text is none.
    pub(crate) fn parse(body: &[u8]) -> Self {
        let pairs = body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
        let field = |pair: &[u8]| {
            let end = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            let value = pair.get(end + 1..).unwrap_or_default();
            Some((unescaped(&pair[..end], true)?, unescaped(value, true)?))
        };
        Self(pairs.filter_map(field).collect())
    }

    /// The first value of a field.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// All values of a field.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// The first value of a field without white space around it; nothing for an empty one.
    pub(crate) fn word(&self, name: &str) -> Option<&str> {
        self.get(name).map(str::trim).filter(|value| !value.is_empty())
    }

    /// Whether it carries a token.
    pub(crate) fn carries(&self, token: &str) -> bool {
        self.get(TOKEN).is_some_and(|sent| same(sent, token))
    }
}

impl Drop for Form {
    fn drop(&mut self) {
        for (_, value) in &mut self.0 {
            value.zeroize();
        }
    }
}

/// Compares by hashes, so that the time says nothing of where two secrets differ.
fn same(left: &str, right: &str) -> bool {
    !right.is_empty() && Digest::of(left.as_bytes()) == Digest::of(right.as_bytes())
}

/// A cookie's value.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// The header that sets a cookie for as long as the browser runs.
pub(crate) fn set_cookie(name: &str, value: &str) -> String {
    format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Strict")
}

/// The header that makes a browser forget a cookie.
pub(crate) fn forget_cookie(name: &str) -> String {
    format!("{name}=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0")
}

/// Whether a posted body is a form of ours as far as the browser tells: the type of forms, and from this very site.
pub(crate) fn is_own(headers: &HeaderMap, authority: Option<&str>) -> bool {
    let text = |name| headers.get(name).and_then(|value: &hyper::header::HeaderValue| value.to_str().ok());
    let kind = text(CONTENT_TYPE)
        .is_some_and(|kind| kind.split(';').next() == Some("application/x-www-form-urlencoded"));
    let host = authority.or_else(|| text(HOST));
    let origin =
        text(ORIGIN).is_none_or(|origin| host.is_some_and(|host| origin == format!("https://{host}")));
    let site = headers.get("sec-fetch-site").is_none_or(|site| site == "same-origin");
    kind && origin && site
}

/// Whether a path can stand in a cookie as it is.
pub(crate) fn fits_cookie(path: &str) -> bool {
    path.len() <= 512 && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.~%".contains(&byte))
}

/// A path of segments, each with what would not stand in a path written as its hexadecimal digits.
pub(crate) fn path(segments: &[&str]) -> String {
    let mut path = String::new();
    for segment in segments {
        path.push('/');
        for byte in segment.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => path.push(byte.into()),
                _ => path.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    path
}

/// A segment of a path as it was meant; nothing where it is no text.
pub(crate) fn segment(text: &str) -> Option<String> {
    unescaped(text.as_bytes(), false)
}

/// What stands escaped by percent signs, and in forms by plus signs; nothing where it is no text. It is written to one
/// place that never moves, so that a secret leaves no copy behind.
fn unescaped(text: &[u8], is_form: bool) -> Option<String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.iter().copied();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? << 4 | digit()?).ok()?
            }
            b'+' if is_form => b' ',
            byte => byte,
        });
    }
    String::from_utf8(std::mem::take(&mut *bytes)).map_err(|error| error.into_bytes().zeroize()).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

    #[test]
    fn only_this_site_s_forms_are_taken() {
        let own = |more: &[_]| is_own(&headers(&[&[FORM, ("host", "rack:8443")], more].concat()), None);
        assert!(own(&[]) && own(&[("origin", "https://rack:8443"), ("sec-fetch-site", "same-origin")]));
        for foreign in ["https://evil.example", "http://rack:8443", "https://rack", "null"] {
            assert!(!own(&[("origin", foreign)]), "{foreign}");
        }
        for site in ["cross-site", "same-site", "none"] {
            assert!(!own(&[("sec-fetch-site", site)]), "{site}");
        }
        assert!(!is_own(&headers(&[("content-type", "text/plain")]), None));
        assert!(!is_own(&headers(&[FORM, ("origin", "https://rack")]), None));
        assert!(is_own(&headers(&[FORM, ("origin", "https://rack")]), Some("rack")));
    }

    #[test]
    fn a_token_is_carried_or_not() {
        assert!(Form::parse(b"a=1&token=abc").carries("abc"));
        for (body, token) in [("token=abd", "abc"), ("token=", ""), ("", ""), ("a=1", "abc")] {
            assert!(!Form::parse(body.as_bytes()).carries(token), "{body}");
        }
    }

    #[test]
    fn fields_are_read_as_browsers_write_them() {
        let form = Form::parse(b"a=1+2%2B3&b&=c&d=%C3%A4%0D%0A&e=x=y&a=2&f=%ff&g=%4&&h=");
        let fields = ["a", "b", "d", "e", "f", "g", "h"].map(|name| form.get(name));
        assert_eq!(fields, [Some("1 2+3"), Some(""), Some("\u{e4}\r\n"), Some("x=y"), None, None, Some("")]);
        assert_eq!((form.word("a"), form.word("h"), form.get("")), (Some("1 2+3"), None, Some("c")));
    }

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let headers = headers(&[("cookie", "x__Host-moat=1; __Host-moat-form=2; __Host-moat=3")]);
        assert_eq!((cookie(&headers, SESSION), cookie(&headers, STRANGER)), (Some("3"), Some("2")));
        assert_eq!(cookie(&headers, "moat"), None);
    }

    #[test]
    fn a_segment_is_read_as_it_was_written() {
        for text in ["demo-1", "a b/c?d#e%", "<script>", "Ä\u{1F600}", "..", ""] {
            assert_eq!(segment(&path(&[text])[1..]).as_deref(), Some(text));
        }
        assert_eq!(path(&["runs", "a/b"]), "/runs/a%2Fb");
        for broken in ["%", "%4", "%zz", "%ff", "%+1"] {
            assert_eq!(segment(broken), None, "{broken}");
        }
    }
}
