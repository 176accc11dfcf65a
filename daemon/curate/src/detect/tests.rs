use std::sync::LazyLock;

use moat_contracts::{Action, Detector, Digest, DocumentId, Kind, Rules, Text, Verdict};
use proptest::prelude::*;

use crate::{Compiled, curate};

static RULES: LazyLock<Compiled> = LazyLock::new(|| Compiled::new(&Rules::default()));

fn found(kind: Kind, text: &str) -> Vec<(&'static str, String)> {
    let findings = RULES.detectors.find(kind, text);
    findings.iter().map(|f| (f.detector.label(), text[f.start..f.end].to_owned())).collect()
}

fn text(ordinal: u32, kind: Kind, body: &str) -> Text {
    Text { ordinal, first_line: 1, body: body.to_owned(), kind, language: None, charset: "UTF-8" }
}

fn records(kind: Kind, bodies: &[&str]) -> Vec<moat_contracts::Record> {
    let texts: Vec<Text> = bodies.iter().zip(0..).map(|(body, ordinal)| text(ordinal, kind, body)).collect();
    curate(&RULES, DocumentId(Digest::of(b"one")), &texts)
}

/// Values are put together here so that no scanner takes this file for a leak.
fn joined(parts: &[&str]) -> String {
    parts.concat()
}

#[test]
fn secrets_are_found_in_the_places_where_people_leave_them() {
    let random = "q7Rk2Lw9Zt4Xv1Bn6Mc3Hd8Js5Fg0PaYuEiTo";
    let cases: Vec<(&str, String)> = vec![
        ("AWS_KEY", joined(&["AK", "IAQ7RK2LW9ZT4XV1BN"])),
        ("GITHUB_TOKEN", joined(&["gh", "p_", &random[..36]])),
        ("GITHUB_TOKEN", joined(&["github", "_pat_", random, "_", random])),
        ("GITLAB_TOKEN", joined(&["gl", "pat-", &random[..20]])),
        ("SLACK_TOKEN", joined(&["xo", "xb-", "263594206564-2343594206574-", &random[..24]])),
        ("GOOGLE_API_KEY", joined(&["AI", "za", &random[..35]])),
        ("STRIPE_KEY", joined(&["sk", "_live_", &random[..24]])),
        ("NPM_TOKEN", joined(&["np", "m_", &random[..36]])),
        ("PYPI_TOKEN", joined(&["py", "pi-AgEIcHlwaS5vcmc", random, random])),
        ("MODEL_API_KEY", joined(&["sk", "-ant-api03-", random])),
        ("JWT", joined(&["ey", "JhbGciOiJIUzI1NiJ9.", "eyJzdWIiOiIxMjM0NTY3ODkwIn0.", random])),
    ];
    for (label, secret) in cases {
        for around in ["", "x = ", "see (", "\"", "line\n"] {
            let text = format!("{around}{secret} and more");
            assert_eq!(found(Kind::Prose, &text), [(label, secret.clone())], "{text}");
        }
        let escaped = format!("{{\"log\": \"a\\n{secret}\\nb\"}}");
        assert_eq!(found(Kind::Json, &escaped), [(label, secret.clone())], "{escaped}");
        // Part of a longer word, it is something else.
        assert_eq!(
            found(Kind::Prose, &format!("zz{secret}")).first().map(|f| f.0 == label),
            None,
            "{secret}"
        );
    }
}

#[test]
fn credentials_in_urls_headers_and_assignments_are_found() {
    let cases = [
        ("postgres://app:Xk29fLq81z@db.intern:5432/crm", "DATABASE_URL", "app:Xk29fLq81z"),
        ("mongodb+srv://root:Pq7zLm20@cluster0.mongo.net", "DATABASE_URL", "root:Pq7zLm20"),
        ("git clone https://ci:k3Jf92mQx7@git.firma.de/a.git", "URL_CREDENTIALS", "ci:k3Jf92mQx7"),
        ("Authorization: Bearer 3f9Kx81Lq20ZmT7cVb5N", "AUTH_HEADER", "3f9Kx81Lq20ZmT7cVb5N"),
        ("Authorization: Basic YWxhZGRpbjpvcGVuc2VzYW1l", "AUTH_HEADER", "YWxhZGRpbjpvcGVuc2VzYW1l"),
        ("password = \"kR7!pWz2#q\"", "SECRET", "kR7!pWz2#q"),
        ("DB_PASSWORD=kR7pWz29qLmX", "SECRET", "kR7pWz29qLmX"),
        ("  client_secret: 'a8f3Kz91LmQ0x7'", "SECRET", "a8f3Kz91LmQ0x7"),
        ("\"apiKey\": \"9f8e7d6c5b4a39281706\"", "SECRET", "9f8e7d6c5b4a39281706"),
        ("Passwort: Sommer2024!", "SECRET", "Sommer2024!"),
        ("AccountKey=Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA==;", "SECRET", "Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA=="),
        ("auth_token => 'Qz81kLm37xPd'", "SECRET", "Qz81kLm37xPd"),
    ];
    for (text, label, secret) in cases {
        assert_eq!(found(Kind::Prose, text), [(label, secret.to_owned())], "{text}");
    }
    let pem = joined(&[
        "-----BEGIN RSA PRIV",
        "ATE KEY-----\nMIIEowIBAAKCAQEAx8Rk2Lw9Zt4Xv1Bn6Mc3Hd8Js5Fg0PaYuEiToWqSdFgH\njKlZxCvBnM==\n-----END RSA PRIV",
        "ATE KEY-----",
    ]);
    assert_eq!(found(Kind::Prose, &format!("key:\n{pem}\nend")), [("PRIVATE_KEY", pem.clone())]);
    let cut = pem.split("\n-----END").next().unwrap();
    assert_eq!(found(Kind::Prose, &format!("{cut}\n\nThe rest is lost.")), [("PRIVATE_KEY", cut.to_owned())]);
}

#[test]
fn personal_data_is_found() {
    let cases = [
        ("Write to anna.berg+hr@firma.de.", "EMAIL", "anna.berg+hr@firma.de"),
        ("<jörg@müller.example.co.uk>", "EMAIL", "jörg@müller.example.co.uk"),
        ("IBAN DE89 3704 0044 0532 0130 00 bei der Bank", "IBAN", "DE89 3704 0044 0532 0130 00"),
        ("GB82WEST12345698765432", "IBAN", "GB82WEST12345698765432"),
        ("card 4111 1111 1111 1111 exp", "CREDIT_CARD", "4111 1111 1111 1111"),
        ("5500-0000-0000-0004", "CREDIT_CARD", "5500-0000-0000-0004"),
        ("amex 378282246310005,", "CREDIT_CARD", "378282246310005"),
        ("SSN 536-90-4399", "US_SSN", "536-90-4399"),
        ("Steuer-ID: 86 095 742 719", "DE_TAX_ID", "86 095 742 719"),
        ("Versicherungsnummer 65 170839 J 003", "DE_PENSION", "65 170839 J 003"),
        ("eth0 00:1A:2b:3C:4d:5E up", "MAC_ADDRESS", "00:1A:2b:3C:4d:5E"),
        ("from 10.20.30.41 port 22", "IP_ADDRESS", "10.20.30.41"),
        ("host 93.184.216.34:443", "IP_ADDRESS", "93.184.216.34"),
        ("to 2a02:8109:9a40:1f2c::17 via", "IP_ADDRESS", "2a02:8109:9a40:1f2c::17"),
        ("Call +49 (0)30 1234567.", "PHONE", "+49 (0)30 1234567"),
        ("+1-212-555-0175", "PHONE", "+1-212-555-0175"),
        ("(212) 555-0175", "PHONE", "(212) 555-0175"),
        ("call 212.555.0175 now", "PHONE", "212.555.0175"),
        ("0171 / 2345678", "PHONE", "0171 / 2345678"),
        ("appelez le 01 42 68 53 00", "PHONE", "01 42 68 53 00"),
        ("Telefon: 03012345678", "PHONE", "03012345678"),
        ("\"phone\": \"5551234567\"", "PHONE", "5551234567"),
        ("0049 30 1234567", "PHONE", "0049 30 1234567"),
    ];
    for (text, label, value) in cases {
        assert_eq!(found(Kind::Prose, text), [(label, value.to_owned())], "{text}");
    }
    assert_eq!(
        found(Kind::Prose, "联系电话13812345678或zhang@gongsi.cn"),
        [("EMAIL", "zhang@gongsi.cn".to_owned())]
    );
}

#[test]
fn what_only_looks_so_is_left_alone() {
    let harmless = [
        "version 1.2.3.4 and v10.4.0.1, requires numpy==1.26.4.1",
        "Chrome/120.0.6099.71 Safari/537.36",
        "127.0.0.1:8080 and ::1 and 0.0.0.0, mask 255.255.255.0, net 10.0.0.0/8, docs 192.0.2.7",
        "OID 1.3.6.1.4.1.311.21.20",
        "sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "commit 4111111111111111aaaabbbbccccddddeeee0000",
        "550e8400-e29b-41d4-a716-446655440000",
        "ISBN 978-3-16-148410-0 and 0-306-40615-2",
        "order 4111111111111112, invoice 2023-000123-01, part 017-2345-6789-11",
        "2023-01-02 12:30:45.123456 and 20231101123456 and 1700000000000 and 1700000000000000",
        "01.02.2023 and 01/02/2023 and 31-12-1999",
        "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
        "1,234,567,890.12 and +1.23456789 and -0.123456789 and 3.14159265358979",
        "matrix 012 345 678 901",
        "std::fmt::Display, a::b, dead::beef, face:b00c",
        "icon@2x.png and @decorator and user@host and git@github.com:org/repo.git and react@18.2.0",
        "someone@example.com and x@mail.example.org and a@b.invalid",
        "password = getpass() and token = self.next_token(2) and secret: str = None",
        "password: <password> and PASSWORD=${DB_PASSWORD1} and pwd='changeme123' and token=xxxxxxxx1234",
        "The password must hold 8 to 20 characters. Token: a unit of text. Secret: keep it!",
        "tokenizer = AutoTokenizer1.from_pretrained(\"Qwen2-0.5B-Instruct\")",
        "max_tokens: 1234567890 and token_type: 'abC123def456'",
        "AKIAIOSFODNN7EXAMPLE",
        "postgres://user:password@localhost/db and https://host:8080/a@b and http://${USER}:${PASS}@host",
        "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
        "-----BEGIN CERTIFICATE-----\nMIIEowIBAAKCAQEAx8Rk2Lw9Zt4Xv1Bn6Mc3Hd8Js5Fg0PaYuEiToWqSdFgH\n-----END CERTIFICATE-----",
        "Basic training and Bearer bonds and Basic Authentication",
        "00:00:00:00:00:00 and ff:ff:ff:ff:ff:ff and 12:30:45:10:20",
        "000-12-3456 and 666-12-3456 and 123-00-4567 and 536-90-43991",
        "DE00 3704 0044 0532 0130 00",
        "hotel 1234567 and model 5551234 and figure 212",
        "task-sk-learn disk-usage risk_live_feed",
        "51 Franklin Street, Boston, MA 02110-1301 USA",
        "5223 5224 5225 5226 5227 5228 and 4F6E\n5232 5233 5246 5231 52BC 530A",
        "https://abc:xyz99@example.com/ and cvs://:pserver:anoncvs@localhost and OID 1.3.101.110",
        "<Buffer 01 02 03 04 05> and 0.026/0.026/0.026/0.000 ms and 0069 0307 0301 and '0.0428488254547119'",
        "PWD: '/Users/maciej1'",
        "Größe 120 x 80 x 45 mm, Artikel 0815-4711",
    ];
    for text in harmless {
        for kind in [Kind::Prose, Kind::Code] {
            assert_eq!(found(kind, text), [], "{text}");
        }
    }
}

#[test]
fn equal_values_have_one_number_throughout_a_document() {
    let bodies =
        ["Ask Anna@Firma.de or bob@firma.de.", "anna@firma.de, tel. +49 30 1234567, +49-30-123-4567"];
    let records = records(Kind::Prose, &bodies);
    assert_eq!(records[0].body, "Ask [EMAIL_1] or [EMAIL_2].");
    assert_eq!(records[1].body, "[EMAIL_1], tel. [PHONE_1], [PHONE_1]");
    let span = &records[0].redactions[1];
    let (start, length) = (span.start as usize, span.length as usize);
    assert_eq!((&bodies[0][start..start + length], span.number), ("bob@firma.de", 2));
}

#[test]
fn json_stays_json() {
    let bodies = [
        r#"{"mail": "a\nbert@firma.de", "card": 4111111111111111, "n": [-4111111111111111, 1.5]}"#,
        r#"{"bert@firma.de": 1, "log": "x\\\\bert@firma.de \u00e4anna@firma.de", "token": "a8f3Kz91\"LmQ0x7"}"#,
        r#"{"inner": "{\"password\": \"kR7pWz29qLmX\"}", "phone": 5551234567}"#,
    ];
    let expected = [
        r#"{"mail": "a\n[EMAIL_1]", "card": "[CREDIT_CARD_1]", "n": ["[CREDIT_CARD_1]", 1.5]}"#,
        r#"{"[EMAIL_1]": 1, "log": "x\\\\[EMAIL_1] \u00e4[EMAIL_2]", "token": "[SECRET_1]"}"#,
        r#"{"inner": "{\"password\": \"[SECRET_2]\"}", "phone": "[PHONE_1]"}"#,
    ];
    for (record, expected) in records(Kind::Json, &bodies).iter().zip(expected) {
        assert_eq!(record.body, expected);
        assert!(serde_json::from_str::<serde_json::Value>(&record.body).is_ok());
    }
}

#[test]
fn actions_decide_and_mostly_secret_records_are_dropped() {
    let mut rules = Rules::default();
    rules.quality.prose.min_words = 0;
    rules.quality.prose.min_stop_words = 0;
    rules.quality.prose.min_punctuated_lines = 0.0;
    rules.quality.prose.max_short_lines = 0.0;
    rules.detect.labels.insert(Detector::Email, Action::Drop);
    rules.detect.labels.insert(Detector::Phone, Action::Off);
    let bodies = [
        "Tell anna@firma.de about this, please.",
        "Or call +49 30 1234567 about it, please.",
        "The host 10.20.30.41 is down.",
        "DB_PASSWORD=kR7pWz29qLmX",
    ];
    let texts: Vec<Text> = bodies.iter().zip(0..).map(|(body, n)| text(n, Kind::Prose, body)).collect();
    let records = curate(&Compiled::new(&rules), DocumentId(Digest::of(b"one")), &texts);
    let verdicts: Vec<Verdict> = records.iter().map(|record| record.verdict).collect();
    assert_eq!(verdicts, [Verdict::Dropped, Verdict::Kept, Verdict::Redacted, Verdict::Dropped]);
    assert_eq!(records[0].reasons[0].rule, "EMAIL");
    assert_eq!(records[2].reasons[0].rule, "IP_ADDRESS");
    let reason = &records[3].reasons[0];
    assert_eq!(
        (reason.rule.as_str(), reason.measured, reason.limit),
        ("max_secret_share", Some(0.5), Some(0.4))
    );
}

#[test]
fn hostile_texts_are_searched_in_one_walk() {
    // Quadratic work over two megabytes would not end within the hour.
    let parts = [
        "a",
        "1",
        "1 ",
        "@",
        "a@",
        "a.",
        "@a.",
        "://",
        "a://b:c",
        "-----BEGIN PRIVATE KEY-----",
        "eyJ",
        "eyJaaaaaaaa.",
        "password=",
        "password:\"",
        "+1",
        "((",
        "0171-",
        "DE89 ",
        "1:",
        "::",
        "\\\\",
        "Bearer ",
        "2001:",
        "a@b.de ",
        "+49 30 1234567 ",
    ];
    for part in parts {
        let text = part.repeat(2_000_000 / part.len());
        for kind in [Kind::Prose, Kind::Json] {
            let findings = RULES.detectors.find(kind, &text);
            assert!(findings.iter().all(|finding| finding.end <= text.len()));
        }
    }
}

/// Pieces that findings are made of, so that random texts hold many and stand close together.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-z]{1,8}",
        2 => "[0-9]{1,12}",
        2 => "[ .,:;/@+()=\"'\\[\\]{}<>\n_-]{1,3}",
        1 => Just("anna@firma.de".to_owned()),
        1 => Just("+49 30 1234567".to_owned()),
        1 => Just("0171 2345678".to_owned()),
        1 => Just("4111 1111 1111 1111".to_owned()),
        1 => Just("10.20.30.41".to_owned()),
        1 => Just("2a02:8109:9a40:1f2c::17".to_owned()),
        1 => Just("DE89 3704 0044 0532 0130 00".to_owned()),
        1 => Just("password=kR7pWz29qLmX".to_owned()),
        1 => Just("postgres://app:Xk29fLq81z@".to_owned()),
        1 => Just("token: \"".to_owned()),
        1 => Just("tel ".to_owned()),
        1 => Just("Bearer 3f9Kx81Lq20ZmT7cVb5N".to_owned()),
        1 => "\\PC{1,4}",
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn a_redacted_text_holds_nothing_more(body in pieces()) {
        for kind in [Kind::Prose, Kind::Code] {
            let first = records(kind, &[&body]).remove(0);
            let second = records(kind, &[&first.body]).remove(0);
            prop_assert_eq!(&second.redactions, &[], "{:?} -> {:?}", body, first.body);
            prop_assert_eq!(second.body, first.body);
        }
    }

    #[test]
    fn spans_lie_in_the_text_and_lines_stay(body in pieces()) {
        let record = records(Kind::Prose, &[&body]).remove(0);
        prop_assert_eq!(record.body.matches('\n').count(), body.matches('\n').count());
        let (mut rebuilt, mut from) = (String::new(), 0);
        for span in &record.redactions {
            let (start, end) = (span.start as usize, (span.start + span.length) as usize);
            prop_assert!(from <= start && start < end && body.is_char_boundary(start) && body.is_char_boundary(end));
            rebuilt.push_str(&body[from..start]);
            rebuilt.push_str(&format!("[{}_{}]", span.label, span.number));
            rebuilt.extend(body[start..end].matches('\n'));
            from = end;
        }
        rebuilt.push_str(&body[from..]);
        prop_assert_eq!(rebuilt, record.body);
    }

    #[test]
    fn any_json_stays_json(strings in prop::collection::vec(pieces(), 1..4), number in any::<i64>(), digits in "[1-9][0-9]{14,15}") {
        let card: serde_json::Value = serde_json::from_str(&digits).unwrap();
        let value = serde_json::json!({"key": strings[0], "list": strings, "n": number, "card": card, "list2": [card, number]});
        for json in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let record = records(Kind::Json, &[&json]).remove(0);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&record.body).is_ok(), "{} -> {}", json, record.body);
        }
    }
}
