use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, Kind};

/// Everything that decides what curation makes of a text: the `[curation]` table of the configuration.
///
/// A missing key takes the default of its own table, so `[curation.quality.code]` with one key changes that one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// Thresholds of quality, one profile for each kind of text.
    pub quality: Profiles,
    /// Which secrets and personal data are looked for, and what is done about them.
    pub detect: Detect,
    /// When two records are the same.
    pub duplicates: Duplicates,
}

/// One set of thresholds for each [`Kind`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "ProfileChanges")]
pub struct Profiles {
    /// Plain text in sentences.
    pub prose: Quality,
    /// Markdown.
    pub markdown: Quality,
    /// Text taken out of HTML.
    pub html: Quality,
    /// Source code.
    pub code: Quality,
    /// JSON.
    pub json: Quality,
    /// Rows of CSV or TSV.
    pub table: Quality,
    /// Chats.
    pub chat: Quality,
    /// Preferences: their prompts and chosen answers.
    pub preference: Quality,
}

/// Declares the thresholds once: the struct itself, and the form in which every key may be missing.
macro_rules! thresholds {
    ($($(#[$doc:meta])* $key:ident: $number:ty,)*) => {
        /// Thresholds of one profile. A record is dropped where one of them is crossed; 0 turns a rule off.
        ///
        /// Sources: Gopher (Rae et al. 2021, appendix A), C4 (Raffel et al. 2020), FineWeb (Penedo et al. 2024) and
        /// StarCoder (Li et al. 2023), adapted to documents that people write inside a company.
        #[derive(Clone, Debug, Default, PartialEq, Serialize)]
        pub struct Quality {
            $($(#[$doc])* pub $key: $number,)*
        }

        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct QualityChanges {
            $($key: Option<$number>,)*
        }

        impl QualityChanges {
            fn over(self, mut quality: Quality) -> Quality {
                $(if let Some(value) = self.$key {
                    quality.$key = value;
                })*
                quality
            }
        }

        impl Quality {
            /// Every key with its value, in the order of declaration.
            #[allow(clippy::cast_precision_loss)]
            pub fn entries(&self) -> Vec<(&'static str, f64)> {
                vec![$((stringify!($key), self.$key as f64),)*]
            }
        }
    };
}

thresholds! {
    /// Fewest words, by Unicode segmentation.
    min_words: u64,
    /// Most words.
    max_words: u64,
    /// Smallest mean length of a word, in characters. Not applied to scripts without spaces.
    min_mean_word: f64,
    /// Largest mean length of a word, in characters. Not applied to scripts without spaces.
    max_mean_word: f64,
    /// Smallest share of words that hold a letter.
    min_alphabetic_words: f64,
    /// Fewest occurrences of the language's commonest words. Applied only where Moat has a list for the language.
    min_stop_words: u64,
    /// Most `#` and ellipses for each word.
    max_symbol_ratio: f64,
    /// Largest share of lines that begin with a bullet.
    max_bullet_lines: f64,
    /// Largest share of lines that end with an ellipsis.
    max_ellipsis_lines: f64,
    /// Smallest share of lines that end with a sentence's punctuation.
    min_punctuated_lines: f64,
    /// Largest share of lines of at most 30 characters.
    max_short_lines: f64,
    /// Most line breaks for each word.
    max_newline_ratio: f64,
    /// Longest line, in characters.
    max_line: u64,
    /// Largest mean length of a line, in characters.
    max_mean_line: f64,
    /// Smallest share of characters that are letters or digits, white space left out.
    min_alphanumeric: f64,
    /// Largest share of replacement and control characters, the trace of a wrong decoding.
    max_broken_characters: f64,
    /// Most times that the filler text "lorem ipsum" may begin.
    max_filler: u64,
    /// Largest share of lines that stood before.
    max_duplicate_lines: f64,
    /// Largest share of paragraphs that stood before.
    max_duplicate_paragraphs: f64,
    /// Largest share of characters in lines that stood before.
    max_duplicate_line_characters: f64,
    /// Largest share of characters in paragraphs that stood before.
    max_duplicate_paragraph_characters: f64,
    /// Largest share of characters in the commonest pair of words.
    max_top_2_gram: f64,
    /// Largest share of characters in the commonest three words.
    max_top_3_gram: f64,
    /// Largest share of characters in the commonest four words.
    max_top_4_gram: f64,
    /// Largest share of characters in five words that stood before.
    max_duplicate_5_gram: f64,
    /// Largest share of characters in six words that stood before.
    max_duplicate_6_gram: f64,
    /// Largest share of characters in seven words that stood before.
    max_duplicate_7_gram: f64,
    /// Largest share of characters in eight words that stood before.
    max_duplicate_8_gram: f64,
    /// Largest share of characters in nine words that stood before.
    max_duplicate_9_gram: f64,
    /// Largest share of characters in ten words that stood before.
    max_duplicate_10_gram: f64,
}

/// What is done about a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Replace it by its label and number, such as `[EMAIL_1]`.
    Redact,
    /// Replace it, and drop the record.
    Drop,
    /// Do not look for it.
    Off,
}

/// Declares the detectors once: name, label and class.
macro_rules! detectors {
    ($($(#[$doc:meta])* $name:ident $label:literal $secret:literal,)*) => {
        /// Something that must not go into a training set as it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Detector {
            $($(#[$doc])* #[serde(rename = $label)] $name,)*
        }

        impl Detector {
            /// All detectors; where findings overlap at the same place, the earlier one wins.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The label that stands in the text, in reasons and in the configuration.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// Whether it grants access to something, rather than naming a person.
            pub const fn is_secret(self) -> bool {
                match self { $(Self::$name => $secret,)* }
            }
        }
    };
}

detectors! {
    /// A PEM block with a private key.
    PrivateKey "PRIVATE_KEY" true,
    /// A database's connection string with a password.
    DatabaseUrl "DATABASE_URL" true,
    /// User and password in another URL.
    UrlCredentials "URL_CREDENTIALS" true,
    /// A JSON Web Token (RFC 7519).
    Jwt "JWT" true,
    /// An AWS access key id.
    AwsKey "AWS_KEY" true,
    /// A GitHub token.
    GithubToken "GITHUB_TOKEN" true,
    /// A GitLab token.
    GitlabToken "GITLAB_TOKEN" true,
    /// A Slack token or webhook.
    SlackToken "SLACK_TOKEN" true,
    /// A Google API key or OAuth secret.
    GoogleApiKey "GOOGLE_API_KEY" true,
    /// A Stripe secret key.
    StripeKey "STRIPE_KEY" true,
    /// An npm token.
    NpmToken "NPM_TOKEN" true,
    /// A PyPI token.
    PypiToken "PYPI_TOKEN" true,
    /// A key of a model provider.
    ModelApiKey "MODEL_API_KEY" true,
    /// The credentials of an HTTP `Authorization` header.
    AuthHeader "AUTH_HEADER" true,
    /// A value assigned to something called password, secret or token.
    Secret "SECRET" true,
    /// An e-mail address.
    Email "EMAIL" false,
    /// An international bank account number (ISO 13616).
    Iban "IBAN" false,
    /// A payment card's number (ISO/IEC 7812).
    CreditCard "CREDIT_CARD" false,
    /// A United States social security number.
    UsSsn "US_SSN" false,
    /// A German tax identification number.
    DeTaxId "DE_TAX_ID" false,
    /// A German pension insurance number.
    DePension "DE_PENSION" false,
    /// A network card's address.
    Mac "MAC_ADDRESS" false,
    /// An IPv4 or IPv6 address.
    IpAddress "IP_ADDRESS" false,
    /// A telephone number.
    Phone "PHONE" false,
}

/// Which secrets and personal data are looked for, and what is done about them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "DetectChanges")]
pub struct Detect {
    /// Largest share of a record's characters that may be secrets; above it the record is dropped. 0 turns it off.
    pub max_secret_share: f64,
    /// Largest share of a record's characters that may be findings of any sort. 0 turns it off.
    pub max_redacted_share: f64,
    /// `redact`, `drop` or `off` for each label.
    pub labels: BTreeMap<Detector, Action>,
}

/// When two records are the same. Equal text always is; near-duplicates are found by MinHash with banding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Duplicates {
    /// Estimated Jaccard similarity of shingle sets from which two records are near-duplicates.
    pub threshold: f64,
    /// Words of one shingle.
    pub shingle: u64,
    /// Bands of the signature; two records are compared where one band is equal.
    pub bands: u64,
    /// Hashes of one band.
    pub rows: u64,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ProfileChanges {
    prose: QualityChanges,
    markdown: QualityChanges,
    html: QualityChanges,
    code: QualityChanges,
    json: QualityChanges,
    table: QualityChanges,
    chat: QualityChanges,
    preference: QualityChanges,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DetectChanges {
    max_secret_share: Option<f64>,
    max_redacted_share: Option<f64>,
    labels: BTreeMap<Detector, Action>,
}

impl From<ProfileChanges> for Profiles {
    fn from(changes: ProfileChanges) -> Self {
        let profiles = Self::default();
        Self {
            prose: changes.prose.over(profiles.prose),
            markdown: changes.markdown.over(profiles.markdown),
            html: changes.html.over(profiles.html),
            code: changes.code.over(profiles.code),
            json: changes.json.over(profiles.json),
            table: changes.table.over(profiles.table),
            chat: changes.chat.over(profiles.chat),
            preference: changes.preference.over(profiles.preference),
        }
    }
}

impl From<DetectChanges> for Detect {
    fn from(changes: DetectChanges) -> Self {
        let mut detect = Self::default();
        detect.max_secret_share = changes.max_secret_share.unwrap_or(detect.max_secret_share);
        detect.max_redacted_share = changes.max_redacted_share.unwrap_or(detect.max_redacted_share);
        detect.labels.extend(changes.labels);
        detect
    }
}

impl Default for Profiles {
    fn default() -> Self {
        // What is broken text in any kind.
        let any = Quality { max_words: 1_000_000, max_broken_characters: 0.01, ..Quality::default() };
        let prose = Quality {
            min_words: 20,
            min_mean_word: 2.5,
            max_mean_word: 12.0,
            min_alphabetic_words: 0.6,
            min_stop_words: 2,
            max_symbol_ratio: 0.1,
            max_bullet_lines: 0.9,
            max_ellipsis_lines: 0.3,
            min_punctuated_lines: 0.05,
            max_short_lines: 0.8,
            max_newline_ratio: 0.5,
            min_alphanumeric: 0.6,
            max_filler: 1,
            max_duplicate_lines: 0.3,
            max_duplicate_paragraphs: 0.3,
            max_duplicate_line_characters: 0.2,
            max_duplicate_paragraph_characters: 0.2,
            max_top_2_gram: 0.2,
            max_top_3_gram: 0.18,
            max_top_4_gram: 0.16,
            max_duplicate_5_gram: 0.25,
            max_duplicate_6_gram: 0.24,
            max_duplicate_7_gram: 0.23,
            max_duplicate_8_gram: 0.22,
            max_duplicate_9_gram: 0.21,
            max_duplicate_10_gram: 0.2,
            ..any.clone()
        };
        // Headings, lists and fenced code are short lines without full stops, and a reference repeats its examples and
        // its phrases: at the web's limits the manuals that are worth most would be dropped.
        let markdown = Quality {
            min_punctuated_lines: 0.0,
            max_short_lines: 0.0,
            max_newline_ratio: 1.0,
            max_bullet_lines: 0.0,
            max_symbol_ratio: 0.3,
            min_alphabetic_words: 0.5,
            min_alphanumeric: 0.45,
            max_filler: 10,
            max_duplicate_lines: 0.6,
            max_duplicate_paragraphs: 0.5,
            max_duplicate_line_characters: 0.5,
            max_duplicate_paragraph_characters: 0.4,
            max_top_2_gram: 0.25,
            max_top_3_gram: 0.3,
            max_top_4_gram: 0.3,
            max_duplicate_5_gram: 0.45,
            max_duplicate_6_gram: 0.44,
            max_duplicate_7_gram: 0.43,
            max_duplicate_8_gram: 0.42,
            max_duplicate_9_gram: 0.41,
            max_duplicate_10_gram: 0.4,
            ..prose.clone()
        };
        // Pages carry menus and reference lists, so lines count for less than in prose.
        let html = Quality { max_bullet_lines: 0.0, max_symbol_ratio: 0.2, ..markdown.clone() };
        // Braces alone on a line and repeated idioms are what code is made of: only line rules and gross repetition.
        let code = Quality {
            min_words: 10,
            max_line: 5000,
            max_mean_line: 200.0,
            min_alphanumeric: 0.25,
            max_top_4_gram: 0.4,
            max_duplicate_10_gram: 0.8,
            ..any.clone()
        };
        let json = Quality { min_words: 5, min_alphanumeric: 0.2, ..any.clone() };
        let table = Quality { min_words: 5, min_alphanumeric: 0.2, ..any.clone() };
        let chat = Quality {
            min_words: 5,
            max_top_2_gram: 0.4,
            max_top_4_gram: 0.4,
            max_duplicate_10_gram: 0.6,
            max_filler: 1,
            ..any
        };
        let preference = chat.clone();
        Self { prose, markdown, html, code, json, table, chat, preference }
    }
}

impl Default for Detect {
    fn default() -> Self {
        let labels = Detector::ALL.iter().map(|&detector| (detector, Action::Redact)).collect();
        Self { max_secret_share: 0.4, max_redacted_share: 0.6, labels }
    }
}

impl Default for Duplicates {
    fn default() -> Self {
        Self { threshold: 0.8, shingle: 5, bands: 14, rows: 8 }
    }
}

impl Profiles {
    /// The thresholds for a kind.
    pub const fn of(&self, kind: Kind) -> &Quality {
        match kind {
            Kind::Prose => &self.prose,
            Kind::Markdown => &self.markdown,
            Kind::Html => &self.html,
            Kind::Code => &self.code,
            Kind::Json => &self.json,
            Kind::Table => &self.table,
            Kind::Chat => &self.chat,
            Kind::Preference => &self.preference,
        }
    }
}

impl Detect {
    /// What is done about a detector's findings.
    pub fn action(&self, detector: Detector) -> Action {
        self.labels.get(&detector).copied().unwrap_or(Action::Redact)
    }
}

/// A value that the rules' types admit but its meaning does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesFault {
    /// The key's path below `curation`, such as `quality.prose.min_words`.
    pub key: String,
    /// What is wrong and what to do, a lowercase sentence.
    pub message: String,
}

impl Rules {
    /// Counts changes of the algorithms themselves, so that records made by older ones are made again.
    pub const VERSION: u32 = 2;

    /// Names the rules: SHA-256 over [`Rules::VERSION`] and their JSON with keys in declaration order.
    pub fn hash(&self) -> Digest {
        let version = Self::VERSION.to_le_bytes();
        // No maps with foreign keys and no infinite numbers pass `faults`, so the JSON cannot fail.
        Digest::of_parts(&[b"moat rules\0", &version, &serde_json::to_vec(self).unwrap_or_default()])
    }

    /// Every fault at once; empty for sound rules.
    pub fn faults(&self) -> Vec<RulesFault> {
        let mut faults = Vec::new();
        let mut hold = |sound: bool, key: String, message: &str| {
            if !sound {
                faults.push(RulesFault { key, message: message.to_owned() });
            }
        };
        for kind in Kind::ALL {
            for (key, value) in self.quality.of(kind).entries() {
                let path = || format!("quality.{}.{key}", kind.word());
                hold(value.is_finite() && value >= 0.0, path(), "must be 0 (off) or more");
                let counted = ["_words", "_mean_word", "_ratio", "_line", "_filler"];
                let share = key == "min_alphabetic_words" || !counted.iter().any(|end| key.ends_with(end));
                hold(!share || value.is_nan() || value <= 1.0, path(), "is a share and must be at most 1");
            }
        }
        let shares = [
            ("max_secret_share", self.detect.max_secret_share),
            ("max_redacted_share", self.detect.max_redacted_share),
        ];
        for (key, share) in shares {
            hold((0.0..=1.0).contains(&share), format!("detect.{key}"), "must be from 0 (off) to 1");
        }
        let duplicates = &self.duplicates;
        let key = |name: &str| format!("duplicates.{name}");
        let threshold = duplicates.threshold;
        hold(threshold > 0.0 && threshold <= 1.0, key("threshold"), "must be above 0 and at most 1");
        hold((1..=64).contains(&duplicates.shingle), key("shingle"), "must be from 1 to 64");
        hold((1..=256).contains(&duplicates.bands), key("bands"), "must be from 1 to 256");
        hold((1..=64).contains(&duplicates.rows), key("rows"), "must be from 1 to 64");
        let hashes = duplicates.bands.saturating_mul(duplicates.rows);
        hold(hashes <= 4096, key("rows"), "times `bands` must be at most 4096");
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Detector, Quality, Rules};

    #[test]
    fn a_key_changes_itself_and_nothing_else() {
        let json = r#"{"quality": {"code": {"min_words": 3}}, "detect": {"labels": {"PHONE": "off"}}}"#;
        let rules: Rules = serde_json::from_str(json).unwrap();
        let mut expected = Rules::default();
        expected.quality.code.min_words = 3;
        expected.detect.labels.insert(Detector::Phone, Action::Off);
        assert_eq!(rules, expected);
        assert_ne!(rules.hash(), Rules::default().hash());
        let again: Rules = serde_json::from_str(&serde_json::to_string(&rules).unwrap()).unwrap();
        assert_eq!((again.hash(), again), (rules.hash(), rules));
    }

    #[test]
    fn unknown_keys_are_refused_wherever_they_stand() {
        for json in [
            r#"{"qualty": {}}"#,
            r#"{"quality": {"poem": {}}}"#,
            r#"{"quality": {"prose": {"min_word": 1}}}"#,
            r#"{"detect": {"labels": {"EMIAL": "off"}}}"#,
            r#"{"detect": {"labels": {"EMAIL": "delete"}}}"#,
            r#"{"detect": {"share": 1}}"#,
            r#"{"duplicates": {"treshold": 1}}"#,
        ] {
            assert!(serde_json::from_str::<Rules>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn faults_name_their_keys_and_come_all_at_once() {
        assert_eq!(Rules::default().faults(), []);
        let mut rules = Rules::default();
        rules.quality.prose.max_short_lines = 1.5;
        rules.quality.table.min_mean_word = -1.0;
        rules.duplicates.threshold = 0.0;
        rules.duplicates.bands = 256;
        rules.duplicates.rows = 64;
        rules.detect.max_secret_share = f64::NAN;
        let keys: Vec<_> = rules.faults().into_iter().map(|fault| fault.key).collect();
        let expected = [
            "quality.prose.max_short_lines",
            "quality.table.min_mean_word",
            "detect.max_secret_share",
            "duplicates.threshold",
            "duplicates.rows",
        ];
        assert_eq!(keys, expected);
        assert_eq!(Quality::default().entries().len(), 30);
    }
}
