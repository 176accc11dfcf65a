//! What documents of each kind turn into, on real encodings and on hostile input.

// Helpers outside the test functions may fail a test, too.
#![allow(clippy::unwrap_used)]

use moat_contracts::{Kind, Skip, Text};
use moat_extract::{ExtractError, Extracted, Limits, MAX_FAULTS, extract};

fn read(path: &str, bytes: impl AsRef<[u8]>) -> Extracted {
    extract(path, bytes.as_ref(), &Limits::default()).unwrap()
}

fn only(path: &str, bytes: impl AsRef<[u8]>) -> Text {
    let Extracted { mut texts, faults } = read(path, bytes);
    assert_eq!(faults, []);
    assert_eq!(texts.len(), 1, "{texts:?}");
    texts.remove(0)
}

const GERMAN: &str = "Die Prüfung der Anlage ergab, daß die Ventile größtenteils dicht schließen; für die übrigen müssen \
                      Ersatzteile bestellt werden. Die Kosten trägt der Betreiber, wie im Vertrag über die jährliche Wartung \
                      vereinbart wurde.\n";
const RUSSIAN: &str = "Проверка оборудования показала, что клапаны закрываются плотно, а для остальных нужно заказать \
                       запасные части. Расходы несёт владелец, как записано в договоре на обслуживание.\n";
const JAPANESE: &str = "設備の点検の結果、弁はほぼ確実に閉まることが分かりました。残りの部品は注文する必要があります。\
                        費用は契約に書かれているとおり、所有者が負担します。よろしくお願いいたします。\n";
const CHINESE: &str = "设备检查表明，阀门基本上关闭严密。其余的需要订购备件。费用由业主承担，如年度维护合同中所约定的那样。\
                       请在本周结束之前告诉我们您的决定，以便我们安排工作人员。\n";

#[test]
fn texts_come_out_of_their_charsets_unharmed() {
    let utf_16 =
        |text: &str, bytes: fn(u16) -> [u8; 2]| -> Vec<u8> { text.encode_utf16().flat_map(bytes).collect() };
    let encoded = |text: &str, label: &str| -> Vec<u8> {
        let encoding = encoding_rs::Encoding::for_label(label.as_bytes()).unwrap();
        let (bytes, _, unmappable) = encoding.encode(text);
        assert!(!unmappable);
        bytes.into_owned()
    };
    let with_mark = |mark: &[u8], bytes: Vec<u8>| [mark, &bytes].concat();
    for (text, bytes, charset) in [
        (GERMAN, GERMAN.as_bytes().to_vec(), "UTF-8"),
        (GERMAN, with_mark(b"\xef\xbb\xbf", GERMAN.as_bytes().to_vec()), "UTF-8"),
        (GERMAN, encoded(GERMAN, "windows-1252"), "windows-1252"),
        (GERMAN, with_mark(b"\xff\xfe", utf_16(GERMAN, u16::to_le_bytes)), "UTF-16LE"),
        (GERMAN, with_mark(b"\xfe\xff", utf_16(GERMAN, u16::to_be_bytes)), "UTF-16BE"),
        (GERMAN, utf_16(GERMAN, u16::to_le_bytes), "UTF-16LE"),
        (RUSSIAN, utf_16(RUSSIAN, u16::to_be_bytes), "UTF-16BE"),
        (RUSSIAN, encoded(RUSSIAN, "koi8-r"), "KOI8-U"),
        (RUSSIAN, encoded(RUSSIAN, "windows-1251"), "windows-1251"),
        (JAPANESE, encoded(JAPANESE, "shift_jis"), "Shift_JIS"),
        (JAPANESE, encoded(JAPANESE, "euc-jp"), "EUC-JP"),
        (JAPANESE, encoded(JAPANESE, "iso-2022-jp"), "ISO-2022-JP"),
        (CHINESE, encoded(CHINESE, "gb18030"), "GBK"),
    ] {
        let found = only("letter.txt", bytes);
        assert_eq!((found.charset, found.body.as_str()), (charset, text));
    }
}

#[test]
fn a_declared_charset_counts_where_a_format_can_declare_one() {
    let page = b"<html><head><meta charset='iso-8859-2'><title>x</title></head><p>\xa3\xf3d\xbc</html>";
    let text = only("page.html", page);
    assert_eq!((text.body.as_str(), text.charset), ("x\n\nŁódź", "ISO-8859-2"));
    let code = only("a.py", b"#!/usr/bin/python\n# -*- coding: koi8-r -*-\ns = '\xf0\xd2'\n");
    assert_eq!((code.charset, code.body.contains("'Пр'")), ("KOI8-R", true));
}

#[test]
fn one_broken_byte_does_not_change_the_charset() {
    let mut bytes = GERMAN.repeat(4).into_bytes();
    bytes.extend(b"line five\nbroken \xff here\n");
    let Extracted { texts, faults } = read("letter.txt", &bytes);
    assert_eq!(texts[0].charset, "UTF-8");
    assert!(texts[0].body.starts_with(GERMAN));
    assert_eq!(faults.iter().map(|fault| fault.line).collect::<Vec<_>>(), [6]);
}

#[test]
fn bytes_that_are_no_text_are_binary() {
    let noise: Vec<u8> = (0..4096_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let numbers: Vec<u8> = (0..4096_u16).flat_map(|i| (i % 32).to_le_bytes()).collect();
    for (path, bytes) in [
        ("a.dat", noise.as_slice()),
        ("numbers", &numbers),
        ("a.txt", b"text \0 text"),
        ("x.gz", b"anything"),
        ("renamed.txt", b"\x1f\x8b\x08 short"),
        ("controls.txt", b"ab\x01\x02\x03\x04cd"),
    ] {
        let error = extract(path, bytes, &Limits::default()).unwrap_err();
        assert_eq!((&error, error.skip()), (&ExtractError::Binary, Skip::Binary), "{path}");
    }
}

#[test]
fn empty_documents_have_no_texts() {
    for path in ["a.txt", "a.html", "a.json", "a.jsonl", "a.csv", "a.rs", "a"] {
        assert_eq!(read(path, b""), Extracted::default(), "{path}");
        assert_eq!(read(path, b" \n\n"), Extracted::default(), "{path}");
    }
}

#[test]
fn prose_markdown_and_code_stay_as_they_are() {
    let page = "---\ntitle: Pumps\n---\n# Pumps\n\n| a | b |\n|---|---|\n";
    let markdown = only("docs/pumps.md", page);
    assert_eq!((markdown.kind, markdown.body.as_str(), markdown.first_line), (Kind::Markdown, page, 1));
    let source = "fn main() {\n\tprintln!(\"ß\");   \n}\n";
    let code = only("src/main.rs", source.replace('\n', "\r\n"));
    assert_eq!((code.kind, code.body.as_str(), code.language.as_deref()), (Kind::Code, source, Some("rust")));
    let prose = only("README", GERMAN.repeat(2));
    assert_eq!((prose.kind, prose.language.as_deref()), (Kind::Prose, Some("deu")));
}

#[test]
fn json_is_checked_and_kept_as_it_stands() {
    let pretty = "{\n  \"a\": [1, 2],\n  \"b\": null\n}\n";
    let text = only("a.json", pretty);
    assert_eq!((text.kind, text.body.as_str()), (Kind::Json, pretty));
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    assert_eq!(only("deep.json", &deep).body, deep);
    let error = extract("a.json", b"{\n  \"a\": [1,\n  secret\n}", &Limits::default()).unwrap_err();
    assert_eq!(error, ExtractError::Damaged { line: 3, what: "not valid JSON at column 3".to_owned() });
    let commented = only("settings.json", "{\n  // on since May\n  \"a\": 1\n}\n");
    assert_eq!((commented.kind, commented.language.as_deref()), (Kind::Code, Some("jsonc")));
    let two = read("really-lines.json", "{\"text\": \"one\"}\n{\"text\": \"two\"}\n");
    assert_eq!(two.texts.iter().map(|text| text.body.as_str()).collect::<Vec<_>>(), ["one", "two"]);
}

#[test]
fn json_lines_give_a_text_each_and_bad_lines_are_told() {
    let lines = concat!(
        r#"{"messages": [{"content": "Hi\r\n\u200bthere", "role": "user", "name": "x"}, {"role": "assistant", "#,
        r#""content": [{"type": "text", "text": "Hello"}]}]}"#,
        "\n\nnot json\n",
        r#"{"id": 7, "text": "cafe\u0301"}"#,
        "\n",
        r#"{"messages": [{"role": "user", "content": null}]}"#,
        "\n{\"a\": 1\n  [1, 2]  \n"
    );
    let Extracted { texts, faults } = read("a.jsonl", lines);
    let found: Vec<_> = texts.iter().map(|t| (t.ordinal, t.first_line, t.kind, t.body.as_str())).collect();
    assert_eq!(
        found,
        [
            (
                0,
                1,
                Kind::Chat,
                r#"[{"role":"user","content":"Hi\nthere"},{"role":"assistant","content":"Hello"}]"#
            ),
            (1, 4, Kind::Prose, "café"),
            (2, 5, Kind::Json, r#"{"messages": [{"role": "user", "content": null}]}"#),
            (3, 7, Kind::Json, "[1, 2]"),
        ]
    );
    assert_eq!(faults.iter().map(|fault| fault.line).collect::<Vec<_>>(), [3, 6]);
    assert!(matches!(
        extract("a.jsonl", b"\nx\ny\n", &Limits::default()),
        Err(ExtractError::Damaged { line: 2, .. })
    ));
    assert_eq!(read("a.jsonl", "1\n".to_owned() + &"x\n".repeat(500)).faults.len(), MAX_FAULTS);
}

#[test]
fn limits_hold_and_are_told() {
    let limits = Limits { max_texts: 2 };
    let lines = extract("a.jsonl", b"1\n2\n3\n4\n", &limits).unwrap();
    assert_eq!((lines.texts.len(), lines.faults[0].line), (2, 3));
    let table = "n,m\n".to_owned() + &"1,2\n".repeat(120);
    let rows = extract("a.csv", table.as_bytes(), &limits).unwrap();
    assert_eq!((rows.texts.len(), rows.faults[0].line), (2, 102));
    assert_eq!(extract("a.csv", &table.as_bytes()[..4 * 101], &limits).unwrap().faults, []);
}

#[test]
fn short_tables_keep_their_names_in_every_text() {
    let mut table = "\n\nname;price\n".to_owned();
    for row in 0..60 {
        table += &format!("bolt {row};{row},50\n");
    }
    let texts = read("prices.csv", &table).texts;
    assert_eq!(
        texts.iter().map(|text| (text.first_line, text.kind)).collect::<Vec<_>>(),
        [(3, Kind::Table), (54, Kind::Table)]
    );
    assert!(texts[0].body.starts_with("name | price\nbolt 0 | 0,50\n"));
    assert!(texts[1].body.starts_with("name | price\nbolt 50 | 50,50\n"));
    assert_eq!(only("a.tsv", "1\t2\t\n\n3\n").body, "1 | 2\n3\n");
    assert_eq!(only("a.csv", "name,price\n").body, "name | price");
}

#[test]
fn tables_with_letters_in_them_become_named_values() {
    let table = "id,subject,body\n1,\"Pump, old\",\"It leaks.\r\nPlease come.\"\n2,,short\n";
    assert_eq!(
        only("a.csv", table).body,
        "id: 1\nsubject: Pump, old\nbody: It leaks.\nPlease come.\n\nid: 2\nbody: short\n"
    );
}

#[test]
fn a_quote_that_never_ends_swallows_no_rows() {
    let table = "a,b\n1,\"2\n".to_owned() + &"3,4\n".repeat(300);
    let Extracted { texts, faults } = read("a.csv", &table);
    assert_eq!(faults.iter().map(|fault| fault.line).collect::<Vec<_>>(), [2]);
    assert_eq!(texts.len(), 7);
    assert!(texts[0].body.starts_with("a | b\n1 | \"2\n3 | 4\n"));
}

/// Inputs that cost quadratic time or a deep stack in careless readers; each of some megabytes, so that such a
/// reader would not come back.
#[test]
fn hostile_documents_cost_no_more_than_their_bytes() {
    const MANY: usize = 1 << 20;
    for (path, bytes) in [
        ("a.html", "<div>".repeat(MANY)),
        ("a.html", "<table><tr><td>".repeat(MANY / 4)),
        ("a.html", "<b x=1><p>".repeat(MANY / 4)),
        ("a.html", format!("<p {}>x", "a=1 ".repeat(MANY))),
        ("a.html", "<title>".repeat(MANY / 4)),
        ("a.html", "<!--".repeat(MANY)),
        ("a.html", "</x <a '".repeat(MANY / 4)),
        ("a.html", "&".repeat(MANY) + &"&nGtv".repeat(MANY / 4)),
        ("a.html", "<ol><li>".repeat(MANY / 4) + &"<li>x".repeat(MANY / 4)),
        ("a.html", "<tr><td>".to_owned() + &"<td>".repeat(MANY)),
        ("a.json", "[".repeat(MANY)),
        ("a.json", "[[]".to_owned() + &",[]".repeat(MANY) + "]"),
        ("a.jsonl", "{\"text\":".repeat(MANY / 4)),
        ("a.jsonl", "1\n".repeat(MANY)),
        ("a.csv", ",".repeat(4 * MANY)),
        ("a.csv", "\"".repeat(4 * MANY)),
        ("a.csv", "\n".repeat(4 * MANY)),
        ("a.csv", "a\n".repeat(MANY)),
        ("a.txt", "x".repeat(16 * MANY)),
        ("a.txt", "e\u{301}".to_owned() + &"\u{301}\u{323}".repeat(MANY / 2)),
        ("a.txt", "\u{1b}[".repeat(MANY)),
        ("a.txt", "\u{200d}ä".repeat(MANY)),
    ] {
        if let Ok(Extracted { texts, .. }) = extract(path, bytes.as_bytes(), &Limits::default()) {
            let size: usize = texts.iter().map(|text| text.body.len()).sum();
            assert!(size <= 40 * bytes.len(), "{path}: {size} bytes from {}", bytes.len());
        }
    }
}
