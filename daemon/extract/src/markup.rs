//! HTML's tokens, by the tokenizer of the HTML standard (13.2.5) as far as text needs it: tags, comments, raw text,
//! character references. There is no tree, so that neither depth nor the number of attributes can cost more than
//! their bytes.

use web_atoms::{C1_REPLACEMENTS, NAMED_ENTITIES};

/// One piece of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// Text in which character references still stand; see [`decode`].
    Text(&'a str),
    Start {
        name: &'a str,
        /// All attributes as they stand.
        attributes: &'a str,
    },
    End {
        name: &'a str,
    },
}

/// Elements whose content holds no tags: it ends at their own end tag only.
const RAW: [&str; 8] = ["script", "style", "title", "textarea", "xmp", "iframe", "noembed", "noframes"];

/// Walks over a page's tokens.
pub(crate) struct Tokens<'a> {
    rest: &'a str,
    raw: Option<&'static str>,
    /// XHTML: a tag that ends in `/>` is a whole element.
    xml: bool,
    /// The end tag that such a tag stands for.
    ended: Option<&'a str>,
}

impl<'a> Tokens<'a> {
    pub(crate) fn new(page: &'a str) -> Self {
        Self { rest: page, raw: None, xml: page.trim_start().starts_with("<?xml"), ended: None }
    }

    /// Takes `length` bytes off the front.
    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    /// The content of a raw element: up to its end tag, or to the end of the page.
    fn raw_text(&mut self, name: &str) -> &'a str {
        let closes = |at: usize| {
            let tag = &self.rest.as_bytes()[at + 2..];
            tag.get(..name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name.as_bytes()))
                && tag.get(name.len()).is_none_or(|after| matches!(after, b'\t' | b'\n' | b' ' | b'/' | b'>'))
        };
        let end = self.rest.match_indices("</").map(|(at, _)| at).find(|&at| closes(at));
        self.take(end.unwrap_or(self.rest.len()))
    }

    /// Steps over `<!…>`, `<?…>` and `</` before anything but a letter.
    fn skip_comment(&mut self) {
        let (open, close) = match self.rest.strip_prefix("<!--") {
            // `<!-->` and `<!--->` are whole comments.
            Some(after) if after.starts_with('>') || after.starts_with("->") => (4, ">"),
            Some(_) => (4, "-->"),
            None => (2, ">"),
        };
        let length = self.rest[open..].find(close).map_or(self.rest.len(), |at| open + at + close.len());
        self.take(length);
    }

    /// A tag whose `<` or `</` (`open` bytes) was seen before a letter; `None` where the page ends within it.
    fn tag(&mut self, open: usize) -> Option<Token<'a>> {
        let bytes = self.rest.as_bytes();
        let is_space = |byte: u8| matches!(byte, b'\t' | b'\n' | b' ');
        let span = |from: usize, stop: &dyn Fn(u8) -> bool| {
            bytes[from..].iter().position(|&byte| stop(byte)).map_or(bytes.len(), |length| from + length)
        };
        let name_end = span(open, &|byte| is_space(byte) || matches!(byte, b'/' | b'>'));
        let mut at = name_end;
        while let Some(&byte) = bytes.get(at) {
            if byte == b'>' {
                break;
            }
            if is_space(byte) || byte == b'/' {
                at += 1;
                continue;
            }
            // An attribute's name, which may begin with `=`; then perhaps its value.
            at = span(at + 1, &|byte| is_space(byte) || matches!(byte, b'/' | b'>' | b'='));
            let equals = span(at, &|byte| !is_space(byte));
            if bytes.get(equals) != Some(&b'=') {
                continue;
            }
            at = span(equals + 1, &|byte| !is_space(byte));
            at = match bytes.get(at) {
                Some(&quote @ (b'"' | b'\'')) => span(at + 1, &|byte| byte == quote) + 1,
                _ => span(at, &|byte| is_space(byte) || byte == b'>'),
            };
        }
        if at >= bytes.len() {
            self.rest = "";
            return None;
        }
        let tag = self.take(at + 1);
        let (name, attributes) = (&tag[open..name_end], &tag[name_end..at]);
        if open == 2 {
            return Some(Token::End { name });
        }
        if self.xml && attributes.ends_with('/') {
            self.ended = Some(name);
        } else {
            self.raw = RAW.into_iter().find(|raw| raw.eq_ignore_ascii_case(name));
        }
        Some(Token::Start { name, attributes })
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        if let Some(name) = self.ended.take() {
            return Some(Token::End { name });
        }
        if let Some(name) = self.raw.take() {
            return Some(Token::Text(self.raw_text(name)));
        }
        while !self.rest.is_empty() {
            let bytes = self.rest.as_bytes();
            let markup = |at: usize| match bytes.get(at + 1) {
                Some(b'!' | b'?') => true,
                Some(b'/') => at + 2 < bytes.len(),
                Some(letter) => letter.is_ascii_alphabetic(),
                None => false,
            };
            let text = self.rest.match_indices('<').map(|(at, _)| at).find(|&at| markup(at));
            match text {
                Some(0) => {}
                Some(length) => return Some(Token::Text(self.take(length))),
                None => return Some(Token::Text(self.take(self.rest.len()))),
            }
            let open = if bytes[1] == b'/' { 2 } else { 1 };
            if bytes[open].is_ascii_alphabetic() {
                return self.tag(open);
            }
            self.skip_comment();
        }
        None
    }
}

/// Hands out the text in pieces, character references replaced (HTML standard, 13.2.5.72 ff.).
pub(crate) fn decode(text: &str, mut piece: impl FnMut(&str)) {
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        piece(&rest[..at]);
        let after = &rest[at + 1..];
        let (characters, length) = reference(after).unwrap_or((['&', '\0'], 0));
        for c in characters.into_iter().filter(|c| *c != '\0') {
            piece(c.encode_utf8(&mut [0; 4]));
        }
        rest = &after[length..];
    }
    piece(rest);
}

/// The one or two characters (the second may be NUL) that a reference after its `&` stands for, and its length.
fn reference(after: &str) -> Option<([char; 2], usize)> {
    if let Some(number) = after.strip_prefix('#') {
        let (digits, radix) = match number.strip_prefix(['x', 'X']) {
            Some(digits) => (digits, 16),
            None => (number, 10),
        };
        let length = digits.bytes().take_while(|byte| char::from(*byte).is_digit(radix)).count();
        if length == 0 {
            return None;
        }
        let replacement = char::REPLACEMENT_CHARACTER;
        // What does not fit in 32 bits is no character either.
        let code = u32::from_str_radix(&digits[..length], radix).unwrap_or(u32::MAX);
        let c = match code {
            0 => replacement,
            0x80..=0x9f => C1_REPLACEMENTS[(code - 0x80) as usize].unwrap_or(replacement),
            _ => char::from_u32(code).unwrap_or(replacement),
        };
        let before = after.len() - digits.len() + length;
        return Some(([c, '\0'], before + usize::from(digits[length..].starts_with(';'))));
    }
    // The table knows every beginning of a name, with zeros where it is not yet a whole one; the longest counts.
    let mut found = None;
    for length in
        1..=after.bytes().take_while(|&byte| byte.is_ascii_alphanumeric() || byte == b';').take(40).count()
    {
        let Some(&(first, second)) = NAMED_ENTITIES.get(&after[..length]) else { break };
        if let (1.., Some(first), Some(second)) = (first, char::from_u32(first), char::from_u32(second)) {
            found = Some(([first, second], length));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Token, Tokens, decode};

    fn decoded(text: &str) -> String {
        let mut out = String::new();
        decode(text, |piece| out.push_str(piece));
        out
    }

    #[test]
    fn character_references_are_those_of_the_standard() {
        for (from, to) in [
            ("a &lt; b &amp;&amp; c", "a < b && c"),
            ("&copy 2024 &notin; &notit;", "© 2024 ∉ ¬it;"),
            ("&#8364;&#x20AC;&#128;&#x80", "€€€€"),
            ("&#0;&#xD800;&#99999999999;", "\u{fffd}\u{fffd}\u{fffd}"),
            ("AT&T R&D; & &; &# &#x; &unknown;", "AT&T R&D; & &; &# &#x; &unknown;"),
            ("&NotEqualTilde;", "≂\u{338}"),
        ] {
            assert_eq!(decoded(from), to);
        }
    }

    #[test]
    fn tags_end_where_the_standard_says() {
        let names = |page: &str| -> Vec<String> {
            Tokens::new(page)
                .map(|token| match token {
                    Token::Text(text) => format!("'{text}'"),
                    Token::Start { name, .. } => name.to_owned(),
                    Token::End { name } => format!("/{name}"),
                })
                .collect()
        };
        assert_eq!(names("a < b <p>c</p>"), ["'a < b '", "p", "'c'", "/p"]);
        assert_eq!(names("<a title='x>y' b=c>d</a >"), ["a", "'d'", "/a"]);
        assert_eq!(names("<!-- <p> -->x<!-->y<?php z ?>"), ["'x'", "'y'"]);
        assert_eq!(
            names("<script>if (a</b) '</scripted>'</SCRIPT>x"),
            ["script", "'if (a</b) '</scripted>''", "/SCRIPT", "'x'"]
        );
        assert_eq!(names("<?xml version='1.0'?><script src='a'/>x"), ["script", "/script", "'x'"]);
        assert_eq!(names("x<a href=\"never closed>"), ["'x'"]);
        assert_eq!(names("1</"), ["'1</'"]);
    }
}
