use moat_contracts::{Kind, Profiles, Quality, Reason};

use crate::lines::{self, Lines};
use crate::repetition::{self, Repetition};
use crate::stopwords::StopWords;
use crate::words::Words;

/// The thresholds of every kind, ready to be applied.
#[derive(Clone, Debug)]
pub struct Checks {
    profiles: Vec<Profile>,
    stop_words: StopWords,
}

#[derive(Clone, Debug)]
struct Profile {
    entries: Vec<(&'static str, f64)>,
    /// Longest run of words that a rule looks at; 0 where none does.
    longest: usize,
    stop_words: u64,
}

/// What was measured of one text.
struct Measures<'a> {
    words: &'a Words,
    lines: Lines,
    repetition: Repetition,
}

/// Memory that is kept from text to text.
#[derive(Default)]
pub struct Scratch {
    lines: lines::Scratch,
    repetition: repetition::Scratch,
}

impl Checks {
    /// Makes the profiles ready.
    pub fn new(profiles: &Profiles) -> Self {
        let profiles = Kind::ALL.iter().map(|kind| Profile::new(profiles.of(*kind))).collect();
        Self { profiles, stop_words: StopWords::new() }
    }

    /// Every rule that a text fails, in the order of [`Quality`]; `words` are the text's.
    pub fn failures(
        &self,
        kind: Kind,
        language: Option<&str>,
        text: &str,
        words: &Words,
        scratch: &mut Scratch,
    ) -> Vec<Reason> {
        self.judge(kind, language, text, words, scratch).0
    }

    /// As [`Self::failures`], and how far the text is from another judgement, as a share of a limit: one that fails, of
    /// the limit that it misses by most; one that passes, of the nearest. None where no rule measured anything.
    pub(crate) fn judge(
        &self,
        kind: Kind,
        language: Option<&str>,
        text: &str,
        words: &Words,
        scratch: &mut Scratch,
    ) -> (Vec<Reason>, Option<f64>) {
        let profile = self.profile(kind);
        let lines = lines::measure(text, &mut scratch.lines);
        let repetition =
            repetition::measure(words, lines.characters, profile.longest, &mut scratch.repetition);
        let measures = Measures { words, lines, repetition };
        let mut failures = Vec::new();
        let (mut nearest, mut farthest): (Option<f64>, f64) = (None, 0.0);
        for &(rule, limit) in &profile.entries {
            let measured = if rule == "min_stop_words" {
                let count = self.stop_words.count(language, &words.hashes, profile.stop_words);
                count.filter(|_| !measures.is_unspaced()).map(|count| count as f64)
            } else {
                measures.of(rule)
            };
            let Some(measured) = measured else { continue };
            // Profiles hold no limit of 0.
            let distance = (measured - limit).abs() / limit;
            let crossed = if rule.starts_with("min_") { measured < limit } else { measured > limit };
            if crossed {
                let (measured, limit) = (Some(measured), Some(limit));
                failures.push(Reason { rule: rule.to_owned(), measured, limit, line: None });
                farthest = farthest.max(distance);
            } else if rule != "min_stop_words" {
                // Stop words are counted no further than to their limit.
                nearest = Some(nearest.map_or(distance, |nearest| nearest.min(distance)));
            }
        }
        let margin = if failures.is_empty() { nearest } else { Some(farthest) };
        (failures, margin)
    }

    /// Rules that stand in a kind's profile but say nothing about texts of a language, since Moat has no list of
    /// the language's commonest words.
    pub fn not_applied(&self, kind: Kind, language: Option<&str>) -> Vec<&'static str> {
        let asked = self.profile(kind).stop_words > 0 && !self.stop_words.knows(language);
        if asked { vec!["min_stop_words"] } else { Vec::new() }
    }

    fn profile(&self, kind: Kind) -> &Profile {
        // `profiles` has one for each kind, in the order of declaration, which is that of the discriminants.
        &self.profiles[kind as usize]
    }
}

impl Profile {
    fn new(quality: &Quality) -> Self {
        let entries: Vec<_> = quality.entries().into_iter().filter(|(_, limit)| *limit > 0.0).collect();
        let run = |(rule, _): &(&'static str, f64)| {
            let digits: String = rule.chars().filter(char::is_ascii_digit).collect();
            rule.ends_with("_gram").then(|| digits.parse::<usize>().ok()).flatten()
        };
        let longest = entries.iter().filter_map(run).max().unwrap_or(0);
        Self { entries, longest, stop_words: quality.min_stop_words }
    }
}

impl Measures<'_> {
    /// Whether most words are of scripts without spaces, where words are not what the rules mean.
    fn is_unspaced(&self) -> bool {
        self.words.unspaced * 2 > self.words.len()
    }

    /// What a rule measures; `None` where it has nothing to measure.
    fn of(&self, rule: &str) -> Option<f64> {
        let (lines, words) = (&self.lines, self.words);
        let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        let count = words.len() as u64;
        let spaced = !self.is_unspaced();
        let top = |n: usize| Some(self.repetition.top[n - 2]);
        let duplicate = |n: usize| Some(self.repetition.duplicate[n - 5]);
        match rule {
            "min_words" | "max_words" => Some(count as f64),
            "min_mean_word" | "max_mean_word" => share(words.characters, count).filter(|_| spaced),
            "min_alphabetic_words" => share(words.alphabetic as u64, count),
            "max_symbol_ratio" => share(lines.hashes.max(lines.ellipses), count),
            "max_bullet_lines" => share(lines.bulleted, lines.lines),
            "max_ellipsis_lines" => share(lines.elliptic, lines.lines),
            "min_punctuated_lines" => share(lines.punctuated, lines.lines).filter(|_| spaced),
            "max_short_lines" => share(lines.short, lines.lines).filter(|_| spaced),
            "max_newline_ratio" => share(lines.breaks, count),
            "max_line" => Some(lines.longest as f64),
            "max_mean_line" => share(lines.characters - lines.breaks, lines.lines),
            "min_alphanumeric" => share(lines.alphanumeric, lines.characters.saturating_sub(lines.space)),
            "max_broken_characters" => share(lines.broken, lines.characters),
            "max_filler" => Some(lines.filler as f64),
            "max_duplicate_lines" => share(lines.duplicate_lines, lines.lines),
            "max_duplicate_paragraphs" => share(lines.duplicate_paragraphs, lines.paragraphs),
            "max_duplicate_line_characters" => share(lines.duplicate_line_characters, lines.characters),
            "max_duplicate_paragraph_characters" => {
                share(lines.duplicate_paragraph_characters, lines.characters)
            }
            "max_top_2_gram" => top(2),
            "max_top_3_gram" => top(3),
            "max_top_4_gram" => top(4),
            "max_duplicate_5_gram" => duplicate(5),
            "max_duplicate_6_gram" => duplicate(6),
            "max_duplicate_7_gram" => duplicate(7),
            "max_duplicate_8_gram" => duplicate(8),
            "max_duplicate_9_gram" => duplicate(9),
            "max_duplicate_10_gram" => duplicate(10),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use moat_contracts::{Kind, Profiles, Quality};

    use super::{Checks, Measures, Scratch};
    use crate::words::Words;
    use crate::{lines, repetition};

    /// Names of the rules that a text fails under one profile for all kinds.
    fn failed(quality: &Quality, language: Option<&str>, text: &str) -> Vec<String> {
        let profiles = Profiles { prose: quality.clone(), ..Profiles::default() };
        let mut words = Words::default();
        words.read(text);
        let checks = Checks::new(&profiles);
        let failures = checks.failures(Kind::Prose, language, text, &words, &mut Scratch::default());
        failures.into_iter().map(|reason| reason.rule).collect()
    }

    #[test]
    fn every_key_has_its_measure() {
        let text = "Some words, and some more.";
        let mut words = Words::default();
        words.read(text);
        let lines = lines::measure(text, &mut lines::Scratch::default());
        let measures = Measures { words: &words, lines, repetition: repetition::Repetition::default() };
        for (key, _) in Quality::default().entries() {
            assert!(key == "min_stop_words" || measures.of(key).is_some(), "{key}");
        }
    }

    #[test]
    fn each_rule_holds_at_its_limit_and_fails_beyond() {
        // A text, the key, the value that it just meets, and one that it does not.
        let table: &[(&str, &str, f64, f64)] = &[
            ("one two three four", "min_words", 4.0, 5.0),
            ("one two three four", "max_words", 4.0, 3.0),
            ("aa bbbb", "min_mean_word", 3.0, 3.1),
            ("aa bbbb", "max_mean_word", 3.0, 2.9),
            ("a 1 b 2", "min_alphabetic_words", 0.5, 0.51),
            ("the dog and the cat", "min_stop_words", 2.0, 3.0),
            ("# a b c d", "max_symbol_ratio", 0.25, 0.24),
            ("a... b c… d", "max_symbol_ratio", 0.5, 0.49),
            ("- a\nb\n* c\nd", "max_bullet_lines", 0.5, 0.49),
            ("a...\nb", "max_ellipsis_lines", 0.5, 0.49),
            ("a.\nb\nc\nd", "min_punctuated_lines", 0.25, 0.26),
            ("a\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "max_short_lines", 0.5, 0.49),
            ("a b\nc d", "max_newline_ratio", 0.25, 0.24),
            ("abc\nabcde", "max_line", 5.0, 4.0),
            ("abc\nabcde", "max_mean_line", 4.0, 3.9),
            ("ab!? ", "min_alphanumeric", 0.5, 0.51),
            ("abc\u{FFFD}", "max_broken_characters", 0.25, 0.24),
            ("Lorem ipsum dolor. lorem ipsum", "max_filler", 2.0, 1.0),
            ("a\na\nb\nc", "max_duplicate_lines", 0.25, 0.24),
            ("a\n\na\n\nb\n\nc", "max_duplicate_paragraphs", 0.25, 0.24),
            ("abcd\nabcd", "max_duplicate_line_characters", 0.445, 0.444),
            ("abcd\n\nabcd", "max_duplicate_paragraph_characters", 0.4, 0.39),
            ("a b a b", "max_top_2_gram", 0.86, 0.85),
            ("a b c a b c", "max_top_3_gram", 0.91, 0.9),
            ("a b c d a b c d", "max_top_4_gram", 0.94, 0.93),
            ("a b c d e a b c d e", "max_duplicate_5_gram", 0.27, 0.26),
        ];
        for (text, key, meets, fails) in table {
            let quality = |value: f64| {
                let mut json = serde_json::to_value(Quality::default()).unwrap();
                json[key] = if json[key].is_u64() { (value as u64).into() } else { value.into() };
                let profiles = serde_json::json!({ "prose": json });
                serde_json::from_value::<Profiles>(profiles).unwrap().prose
            };
            assert_eq!(failed(&quality(*meets), Some("eng"), text), Vec::<String>::new(), "{key} meets");
            assert_eq!(failed(&quality(*fails), Some("eng"), text), [*key], "{key} fails");
            assert_eq!(failed(&quality(0.0), Some("eng"), text), Vec::<String>::new(), "{key} off");
        }
    }

    #[test]
    fn every_failing_rule_is_told() {
        let quality = Quality { min_words: 9, max_mean_word: 2.0, min_stop_words: 1, ..Quality::default() };
        let all = ["min_words", "max_mean_word", "min_stop_words"];
        assert_eq!(failed(&quality, Some("eng"), "several lengthy words"), all);
    }

    #[test]
    fn what_people_write_inside_a_company_is_kept() {
        let kept = |kind, language, text: &str| {
            let mut words = Words::default();
            words.read(text);
            let checks = Checks::new(&Profiles::default());
            let failures = checks.failures(kind, language, text, &words, &mut Scratch::default());
            assert_eq!(failures, [], "{text}");
        };
        let ticket = "Ticket 4711: The export to Excel fails with error 500 since the update on Monday.\n\
                      Steps: open the report, choose the month, press Export. It worked before.\n\
                      Workaround: export as CSV and open it by hand.\n";
        kept(Kind::Prose, Some("eng"), ticket);
        let chinese = "本公司总部设在北京，主要从事工业自动化设备的研发和销售。请各部门在周五之前提交下个季度的预算报告。";
        kept(Kind::Prose, Some("cmn"), chinese);
        let thai = "บริษัทของเรามีสำนักงานใหญ่อยู่ที่กรุงเทพ กรุณาส่งรายงานงบประมาณภายในวันศุกร์นี้ ขอบคุณครับ";
        kept(Kind::Prose, Some("tha"), thai);
        let german = "Die Besprechung wird auf Donnerstag verschoben, weil der Raum nicht frei ist. Bitte bringen Sie \
                      die Unterlagen zur Jahresabschlussprüfung und die Donaudampfschifffahrtsverträge mit.";
        kept(Kind::Prose, Some("deu"), german);
        let list = "# Release checklist\n\n- [ ] bump the version\n- [ ] update the changelog\n- [ ] tag the commit\n\
                    - [ ] build the packages\n- [ ] tell the support team about it\n";
        kept(Kind::Markdown, Some("eng"), list);
        kept(Kind::Table, None, "id,name,amount\n1,Widget,12.50\n2,Gadget,99.00\n");
        kept(Kind::Json, None, "{\"name\": \"pump\", \"limits\": {\"low\": 1, \"high\": 9}}");
        let code = "fn main() {\n    let mut sum = 0;\n    for value in values() {\n        sum += value;\n    }\n}\n";
        kept(Kind::Code, Some("rust"), code);
    }

    #[test]
    fn a_missing_list_of_words_is_told() {
        let checks = Checks::new(&Profiles::default());
        assert_eq!(checks.not_applied(Kind::Prose, Some("eng")), Vec::<&str>::new());
        assert_eq!(checks.not_applied(Kind::Prose, Some("kat")), ["min_stop_words"]);
        assert_eq!(checks.not_applied(Kind::Code, None), Vec::<&str>::new());
    }

    #[test]
    fn hostile_texts_are_measured_in_one_walk() {
        // Quadratic work over four megabytes would not end within the hour.
        for text in ["a", " ", "\n", "#", "a ", "a\n", "é", "山", "ab\n\n", "a1.", "\u{301}"] {
            let text = text.repeat(4_000_000 / text.len());
            let mut words = Words::default();
            words.read(&text);
            let checks = Checks::new(&Profiles::default());
            let failures = checks.failures(Kind::Prose, None, &text, &words, &mut Scratch::default());
            assert_ne!(failures, []);
        }
    }
}
