//! The files that pages are made with: kept by browsers for as long as they say the same, and sent packed.
//!
//! Pages themselves are not packed: how small one gets would tell of the secrets in it to whoever can add to it.

use std::io::Write;
use std::sync::LazyLock;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue,
    IF_NONE_MATCH, VARY,
};
use moat_contracts::Digest;
use warp::Reply;
use warp::http::StatusCode;

/// A file that pages are made with.
pub(crate) struct File {
    /// Its name within the sources.
    name: &'static str,
    pub(crate) path: String,
    kind: &'static str,
    content: &'static str,
    /// As gzip packs it (RFC 1952); nothing where that is not smaller.
    packed: Option<Vec<u8>>,
    /// Names the content (RFC 9110, 8.8.3).
    tag: String,
    /// Whether the path names the content too, so that it never has to be asked for again.
    lasting: bool,
}

/// All of them.
pub(crate) static FILES: LazyLock<Vec<File>> = LazyLock::new(|| {
    vec![
        file("style", "css", "text/css; charset=utf-8", include_str!("../assets/style.css")),
        file("script", "js", "text/javascript; charset=utf-8", include_str!("../assets/script.js")),
        file("icon", "svg", "image/svg+xml", include_str!("../assets/icon.svg")),
    ]
});

fn file(name: &'static str, ending: &str, kind: &'static str, content: &'static str) -> File {
    let hash = Digest::of(content.as_bytes()).short();
    // Browsers ask for an icon by its name alone, and others link to it.
    let lasting = name != "icon";
    let path = if lasting { format!("/{name}-{hash}.{ending}") } else { format!("/{name}.{ending}") };
    let packed = pack(content.as_bytes()).filter(|packed| packed.len() < content.len());
    File { name, path, kind, content, packed, tag: format!("\"{hash}\""), lasting }
}

fn pack(content: &[u8]) -> Option<Vec<u8>> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(content).ok()?;
    packer.finish().ok()
}

/// Where a file is.
pub(crate) fn path_of(name: &str) -> &'static str {
    FILES.iter().find(|file| file.name == name).map_or("/", |file| &file.path)
}

impl File {
    /// The answer to a browser that says what it has and takes.
    pub(crate) fn answer(&self, headers: &HeaderMap) -> warp::reply::Response {
        let has = |value: &HeaderValue| {
            let mut known =
                value.to_str().unwrap_or_default().split(',').map(|tag| tag.trim().trim_start_matches("W/"));
            known.any(|tag| tag == self.tag)
        };
        let mut response = match self.packed.as_ref().filter(|_| takes_gzip(headers)) {
            _ if headers.get_all(IF_NONE_MATCH).iter().any(has) => StatusCode::NOT_MODIFIED.into_response(),
            Some(packed) => {
                let mut response = packed.clone().into_response();
                response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                response
            }
            None => self.content.into_response(),
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.kind));
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
        let keep = if self.lasting { "max-age=31536000, immutable" } else { "max-age=300" };
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(keep));
        if let Ok(tag) = HeaderValue::from_str(&self.tag) {
            headers.insert(ETAG, tag);
        }
        response
    }
}

/// Whether gzip is named, and not with the weight 0 that refuses it (RFC 9110, 12.5.3).
fn takes_gzip(headers: &HeaderMap) -> bool {
    let named = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    named.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let refused =
            weight.trim().strip_prefix("q=").is_some_and(|weight| weight.trim_matches(['0', '.']).is_empty());
        name.trim().eq_ignore_ascii_case("gzip") && !refused
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn asked(name: hyper::header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn all_files_together_are_small() {
        let sent = |file: &File| file.packed.as_ref().map_or(file.content.len(), Vec::len);
        let whole: usize = FILES.iter().map(sent).sum();
        assert!(whole < 200_000, "{whole} bytes");
    }

    #[test]
    fn a_browser_gets_what_it_takes_and_nothing_that_it_has() {
        let script = FILES.iter().find(|file| file.name == "script").unwrap();
        for (said, packed) in [
            ("gzip, deflate, br", true),
            ("br;q=1.0, GZIP;q=0.5", true),
            ("identity", false),
            ("gzip;q=0", false),
            ("gzip;q=0.0, br", false),
        ] {
            let answer = script.answer(&asked(ACCEPT_ENCODING, said));
            assert_eq!(answer.headers().contains_key(CONTENT_ENCODING), packed, "{said}");
            assert_eq!(answer.status(), 200);
        }
        assert!(script.path.contains(script.tag.trim_matches('"')));
        for (said, status) in
            [(script.tag.as_str(), 304), ("\"old\"", 200), (&format!("\"old\", W/{}", script.tag), 304)]
        {
            assert_eq!(script.answer(&asked(IF_NONE_MATCH, said)).status(), status, "{said}");
        }
    }
}
