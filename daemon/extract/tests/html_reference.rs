//! HTML beside a whole parser: html5ever's tree, by way of scraper, holds the same words.

use std::collections::BTreeMap;
use std::path::Path;

use moat_extract::{Limits, extract};
use scraper::{ElementRef, Html, Node, Selector};

/// What this crate leaves out.
const DROPPED: [&str; 23] = [
    "script", "style", "noscript", "template", "nav", "footer", "aside", "iframe", "object", "canvas",
    "audio", "video", "svg", "select", "button", "textarea", "noframes", "noembed", "rp", "title", "head",
    "math", "x",
];

/// The words of the tree's text; elements that end a line end a word.
fn words_of_tree(page: &str) -> Vec<String> {
    const INLINE: [&str; 32] = [
        "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font",
        "i", "img", "ins", "kbd", "label", "mark", "nobr", "q", "s", "samp", "small", "span", "strong",
        "sub", "sup", "tt", "u", "var",
    ];
    fn walk(element: ElementRef<'_>, out: &mut String) {
        for child in element.children() {
            match child.value() {
                Node::Text(text) => out.push_str(text),
                Node::Element(tag) if DROPPED.contains(&tag.name()) => {}
                Node::Element(tag) if tag.attr("role") == Some("navigation") => {}
                Node::Element(tag) => {
                    let space = if INLINE.contains(&tag.name()) { "" } else { " " };
                    out.push_str(space);
                    ElementRef::wrap(child).into_iter().for_each(|inside| walk(inside, out));
                    out.push_str(space);
                }
                _ => {}
            }
        }
    }
    let mut out = String::new();
    walk(Html::parse_document(page).root_element(), &mut out);
    words(&out)
}

/// Words without what either side adds: item and heading marks, cell borders, pilcrows of heading links.
fn words(text: &str) -> Vec<String> {
    let text: String =
        text.chars().filter(|c| !matches!(c, '\u{ad}' | '\u{200b}' | '¶' | '\u{feff}')).collect();
    let is_mark = |word: &str| {
        word == "-"
            || word == "|"
            || word.trim_matches('#').is_empty()
            || word.strip_suffix('.').is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    text.split_whitespace().filter(|word| !is_mark(word)).map(str::to_owned).collect()
}

fn pages(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => pages(&path, found),
            Ok(kind)
                if kind.is_file() && path.extension().is_some_and(|ext| ext == "html" || ext == "htm") =>
            {
                found.push(path);
            }
            _ => {}
        }
    }
}

/// Every page of the machine's own documentation has the same words, but for 1 in 200 on either side, since browsers'
/// rules for misplaced tags move some; the title stands in ours only.
#[test]
fn installed_documentation_reads_as_the_tree_does() {
    let mut found = Vec::new();
    pages(Path::new("/usr/share/doc"), &mut found);
    found.sort();
    for path in found.iter().take(300) {
        let bytes = std::fs::read(path).unwrap();
        let Ok(extracted) = extract("page.html", &bytes, &Limits::default()) else { continue };
        let Some(text) = extracted.texts.first() else { continue };
        let Ok(page) = String::from_utf8(bytes) else { continue };
        let tree = words_of_tree(&page);
        let ours = words(&text.body);
        let mut difference = BTreeMap::new();
        tree.iter().for_each(|word| *difference.entry(word).or_insert(0_i64) += 1);
        ours.iter().for_each(|word| *difference.entry(word).or_insert(0) -= 1);
        let title = Html::parse_document(&page)
            .select(&Selector::parse("title").unwrap())
            .next()
            .map(|title| words(&title.text().collect::<String>()).len());
        let missing: i64 = difference.values().filter(|count| **count > 0).sum();
        let added: i64 = -difference.values().filter(|count| **count < 0).sum::<i64>();
        let sample: Vec<_> = difference.iter().filter(|(_, count)| **count != 0).take(12).collect();
        let few = |words: i64| words * 200 <= tree.len() as i64;
        assert!(
            few(missing) && few(added - title.unwrap_or(0) as i64),
            "{}: of {} words {missing} are missing and {added} added: {sample:?}",
            path.display(),
            tree.len()
        );
    }
}
