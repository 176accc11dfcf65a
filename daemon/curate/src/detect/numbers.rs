use moat_contracts::Detector;

use super::{Finding, View, is_word, network};

/// One walk over a text: wherever a number or a word begins, everything that begins so is tried there.
pub(super) fn scan(view: View<'_>, found: &mut Vec<Finding>) {
    let bytes = view.bytes;
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        let finding = if byte.is_ascii_digit() {
            if joined_before(view, at) { hexadecimal(view, at) } else { number(view, at) }
        } else if byte.is_ascii_alphabetic() {
            lettered(view, at)
        } else if byte == b'+' || (byte == b'(' && matches!(view.at(at + 1), b'0'..=b'9' | b'+')) {
            (!is_word(view.before(at)) || view.after_escape(at)).then(|| phone(view, at)).flatten()
        } else {
            None
        };
        if let Some(finding) = finding {
            at = finding.end;
            found.push(finding);
        } else if is_word(byte) {
            // What follows an escape's letter begins a word of its own.
            at += 1;
            while at < bytes.len() && is_word(bytes[at]) && !view.after_escape(at) {
                at += 1;
            }
        } else {
            at += 1;
        }
    }
}

fn number(view: View<'_>, at: usize) -> Option<Finding> {
    hexadecimal(view, at)
        .or_else(|| network::ipv4(view, at))
        .or_else(|| grouped(view, at))
        .or_else(|| phone(view, at))
}

fn hexadecimal(view: View<'_>, at: usize) -> Option<Finding> {
    if !matches!(
        (view.at(at + 2), view.at(at + 3), view.at(at + 4)),
        (b':' | b'-', ..) | (_, b':', _) | (.., b':')
    ) {
        return None;
    }
    let joined =
        matches!(view.before(at), b':' | b'-') && view.before(at.saturating_sub(1)).is_ascii_hexdigit();
    if joined { None } else { network::mac(view, at).or_else(|| network::ipv6(view, at)) }
}

fn lettered(view: View<'_>, at: usize) -> Option<Finding> {
    let code = view.at(at).is_ascii_uppercase() && view.at(at + 1).is_ascii_uppercase();
    let iban = (code && view.at(at + 2).is_ascii_digit() && view.at(at + 3).is_ascii_digit())
        .then(|| iban(view, at))
        .flatten();
    let hex = view.at(at).is_ascii_hexdigit();
    iban.or_else(|| hex.then(|| hexadecimal(view, at)).flatten())
}

/// Whether a number goes on from letters or digits before a sign, as in `a1b2-0171`.
fn joined_before(view: View<'_>, at: usize) -> bool {
    let sign = matches!(view.before(at), b'-' | b'.' | b'/' | b'_' | b'\'');
    sign && at >= 2 && (is_word(view.bytes[at - 2]) || view.bytes[at - 2] == b'/')
}

/// Whether a number goes on after its end.
fn joined_after(view: View<'_>, end: usize) -> bool {
    let sign = matches!(view.at(end), b'-' | b'.' | b'/' | b'@' | b':' | b'%' | b'\'');
    is_word(view.at(end)) || (sign && is_word(view.at(end + 1)))
}

/// Digits in groups, as far as a telephone number's or a card's signs part them.
struct Groups {
    /// Digits of each group.
    sizes: [u8; 12],
    /// End of each group.
    ends: [usize; 12],
    /// The sign before each group; `(` or `)` where brackets take part, 0 where there is none.
    marks: [u8; 12],
    count: usize,
    digits: Vec<u8>,
}

impl Groups {
    /// Reads up to `most` digits; a group that would lead beyond is left out.
    fn read(view: View<'_>, start: usize, most: usize) -> Self {
        let mut groups =
            Self { sizes: [0; 12], ends: [0; 12], marks: [0; 12], count: 0, digits: Vec::with_capacity(24) };
        let mut at = start;
        while groups.count < 12 {
            let mark = at;
            while at - mark < 3 && matches!(view.at(at), b' ' | b'-' | b'.' | b'/' | b'(' | b')') {
                at += 1;
            }
            let from = at;
            while at - from <= most && view.at(at).is_ascii_digit() {
                at += 1;
            }
            if at == from || groups.digits.len() + at - from > most {
                break;
            }
            let signs = &view.bytes[mark..from];
            let bracket = signs.iter().find(|byte| matches!(byte, b'(' | b')'));
            groups.marks[groups.count] = *bracket.or(signs.first()).unwrap_or(&0);
            groups.sizes[groups.count] = u8::try_from(at - from).unwrap_or(u8::MAX);
            groups.ends[groups.count] = at;
            groups.digits.extend_from_slice(&view.bytes[from..at]);
            groups.count += 1;
        }
        groups
    }

    fn sizes(&self) -> &[u8] {
        &self.sizes[..self.count]
    }

    /// The digits of the first groups as a number each.
    fn values(&self, groups: usize) -> Vec<u32> {
        let digits = self.sizes[..groups].iter().map(|size| usize::from(*size)).sum::<usize>();
        self.digits[..digits].iter().map(|digit| u32::from(digit - b'0')).collect()
    }

    /// Whether the first groups have these sizes and one sign between them.
    fn shaped(&self, shape: &[u8], signs: &[u8]) -> bool {
        self.sizes().starts_with(shape)
            && signs.contains(&self.marks.get(1).copied().unwrap_or(0))
            && self.marks[1..shape.len().max(1)].windows(2).all(|pair| pair[0] == pair[1])
    }
}

/// Numbers that stand in groups of known sizes: cards, social security, tax and pension numbers.
fn grouped(view: View<'_>, at: usize) -> Option<Finding> {
    let groups = Groups::read(view, at, 20);
    if groups.digits.len() < 8 {
        return None;
    }
    let found = |detector, count: usize| {
        let end = groups.ends[count - 1];
        (!joined_after(view, end)).then_some(Finding { detector, start: at, end })
    };
    let shape: &[(&[u8], usize)] = &[(&[4, 4, 4, 4], 4), (&[4, 6, 5], 3), (&[4, 6, 4], 3)];
    for (sizes, count) in shape {
        let row = groups.marks[1] == b' ' && in_row(view, at, groups.ends[*count.min(&groups.count) - 1]);
        if groups.shaped(sizes, b" -") && !row && is_card(&groups.values(*count), true) {
            return found(Detector::CreditCard, *count);
        }
    }
    if is_card(&groups.values(1), false) {
        return found(Detector::CreditCard, 1);
    }
    if groups.sizes() == [3, 2, 4] && groups.shaped(&[3, 2, 4], b"-") && is_ssn(&groups.values(3)) {
        return found(Detector::UsSsn, 3);
    }
    let tax = if groups.sizes.first() == Some(&11) { 1 } else { 4 };
    let formed = tax == 1 || groups.shaped(&[2, 3, 3, 3], b" ");
    if formed && is_tax_id(&groups.values(tax)) && told_before(view, at, &["steuer", "idnr", "tax id", "tin"])
    {
        return found(Detector::DeTaxId, tax);
    }
    pension(view, at)
}

/// Whether groups stand in a row of hexadecimal numbers alike, as in tables of characters.
fn in_row(view: View<'_>, start: usize, end: usize) -> bool {
    let alike = |length: usize| (4..=5).contains(&length);
    let gap = |byte: u8| matches!(byte, b' ' | b'\n');
    let before = view.bytes[..start.saturating_sub(1)].iter().rev().take(6);
    let before = before.take_while(|byte| byte.is_ascii_hexdigit()).count();
    let after = view.bytes[view.bytes.len().min(end + 1)..].iter().take(6);
    let after = after.take_while(|byte| byte.is_ascii_hexdigit()).count();
    let closed = |byte: u8| byte == 0 || gap(byte);
    (gap(view.before(start)) && alike(before) && closed(view.before(start - 1 - before)))
        || (gap(view.at(end)) && alike(after) && closed(view.at(end + 1 + after)))
}

/// Sums the digits of doubled digits from the right (ISO/IEC 7812-1, annex B).
fn luhn(digits: &[u32]) -> bool {
    let doubled = |digit: u32| if digit > 4 { 2 * digit - 9 } else { 2 * digit };
    let sum = |(place, digit): (usize, &u32)| if place % 2 == 1 { doubled(*digit) } else { *digit };
    digits.iter().rev().enumerate().map(sum).sum::<u32>() % 10 == 0
}

/// Lengths and first digits that the card networks issue today. Diners' fourteen digits count only in groups, since
/// times are written alike.
fn is_card(digits: &[u32], grouped: bool) -> bool {
    let first = |count: usize| digits.iter().take(count).fold(0, |number, digit| number * 10 + digit);
    let network = match digits.len() {
        16 => {
            first(1) == 4
                || (51..=55).contains(&first(2))
                || (2221..=2720).contains(&first(4))
                || first(4) == 6011
                || first(2) == 65
                || (644..=649).contains(&first(3))
                || first(2) == 35
        }
        15 => matches!(first(2), 34 | 37),
        14 => grouped && (matches!(first(2), 36 | 38) || (300..=305).contains(&first(3))),
        _ => false,
    };
    network && luhn(digits) && digits.iter().any(|digit| *digit != digits[0])
}

/// What the Social Security Administration never issued is left alone.
fn is_ssn(digits: &[u32]) -> bool {
    let number = |range: std::ops::Range<usize>| digits[range].iter().fold(0, |sum, digit| sum * 10 + digit);
    let area = number(0..3);
    area != 0 && area != 666 && area < 900 && number(3..5) != 0 && number(5..9) != 0
}

/// Check digit of ISO/IEC 7064, MOD 11,10; and of the first ten digits one stands twice or thrice.
fn is_tax_id(digits: &[u32]) -> bool {
    if digits.len() != 11 || digits[0] == 0 {
        return false;
    }
    let mut counts = [0; 10];
    digits[..10].iter().for_each(|digit| counts[*digit as usize] += 1);
    let repeated = counts.iter().filter(|count| **count > 1).count();
    let product = digits[..10].iter().fold(10, |product, digit| {
        let sum = (digit + product) % 10;
        (if sum == 0 { 10 } else { sum }) * 2 % 11
    });
    repeated == 1 && counts.iter().all(|count| *count <= 3) && (11 - product) % 10 == digits[10]
}

/// Area, birth date, initial, serial number and check digit (VKVV, section 4), with or without spaces.
fn pension(view: View<'_>, start: usize) -> Option<Finding> {
    let (mut at, mut held) = (start, Vec::with_capacity(12));
    while held.len() < 12 {
        let byte = view.at(at);
        let letter = held.len() == 8;
        if byte == b' ' && matches!(held.len(), 2 | 8 | 9) && view.before(at) != b' ' {
            at += 1;
            continue;
        }
        if !(if letter { byte.is_ascii_uppercase() } else { byte.is_ascii_digit() }) {
            return None;
        }
        held.push(byte);
        at += 1;
    }
    let mut digits: Vec<u32> = held[..8].iter().map(|digit| u32::from(digit - b'0')).collect();
    let letter = u32::from(held[8] - b'A') + 1;
    digits.extend([letter / 10, letter % 10]);
    digits.extend(held[9..11].iter().map(|digit| u32::from(digit - b'0')));
    let factors = [2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1];
    let sum = digits.iter().zip(factors).map(|(digit, factor)| digit * factor);
    let check = sum.map(|product| product / 10 + product % 10).sum::<u32>() % 10;
    let month = digits[4] * 10 + digits[5];
    let day = digits[2] * 10 + digits[3];
    let sound = check == u32::from(held[11] - b'0') && (1..=12).contains(&month) && (1..=81).contains(&day);
    (sound && !joined_after(view, at)).then_some(Finding { detector: Detector::DePension, start, end: at })
}

/// Length of an IBAN in each country that issues them (the registry of ISO 13616).
const IBAN_LENGTHS: &str = "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 \
    EG29 ES24 FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 \
    LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 \
    RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20";

fn iban(view: View<'_>, start: usize) -> Option<Finding> {
    let entry = IBAN_LENGTHS.split_ascii_whitespace();
    let mut entry = entry.filter(|entry| entry.as_bytes()[..2] == view.bytes[start..start + 2]);
    let length: usize = entry.next()?[2..].parse().ok()?;
    let (mut at, mut held) = (start, Vec::with_capacity(34));
    while held.len() < length {
        let byte = view.at(at);
        if byte == b' ' && view.before(at) != b' ' {
            at += 1;
            continue;
        }
        if !byte.is_ascii_uppercase() && !byte.is_ascii_digit() {
            return None;
        }
        held.push(byte);
        at += 1;
    }
    let remainder = held[4..].iter().chain(&held[..4]).fold(0u32, |remainder, byte| match byte {
        b'0'..=b'9' => (remainder * 10 + u32::from(byte - b'0')) % 97,
        _ => (remainder * 100 + u32::from(byte - b'A') + 10) % 97,
    });
    (remainder == 1 && !is_word(view.at(at))).then_some(Finding { detector: Detector::Iban, start, end: at })
}

/// A telephone number: international, American, or with a trunk's 0; other numbers only where a word before says so.
fn phone(view: View<'_>, start: usize) -> Option<Finding> {
    let plus = view.at(start) == b'+' || (view.at(start) == b'(' && view.at(start + 1) == b'+');
    let from = start + if plus { 1 + usize::from(view.at(start) == b'(') } else { 0 };
    if plus && !matches!(view.at(from), b'1'..=b'9') {
        return None;
    }
    let groups = Groups::read(view, from, if plus { 15 } else { 17 });
    let total = groups.digits.len();
    if total < 6 {
        return None;
    }
    let end = groups.ends[groups.count - 1];
    let spaced = groups.count > 1;
    let dotted = groups.marks[1..groups.count].contains(&b'.');
    let even = groups.count > 2 && groups.sizes().iter().all(|size| *size == groups.sizes[0]);
    let first = groups.digits[0];
    let bracketed = groups.marks[0] == b'(' && groups.marks.get(1) == Some(&b')');
    let sound = if plus {
        // A signed decimal number has a dot and no more.
        (8..=15).contains(&total) && !(dotted && groups.count == 2)
    } else if numbers_before(view, start) {
        false
    } else if groups.digits.starts_with(b"00") {
        matches!(groups.digits[2], b'1'..=b'9')
            && (10..=17).contains(&total)
            && spaced
            && !dotted
            && !even
            && (2..=5).contains(&groups.sizes[0])
    } else {
        american(&groups, bracketed) || (first == b'0' && national(&groups, bracketed))
    };
    let told = || (6..=15).contains(&total) && !numbers_before(view, start) && told_phone(view, start);
    ((sound || told()) && !joined_after(view, end)).then_some(Finding {
        detector: Detector::Phone,
        start,
        end,
    })
}

/// The North American plan: area and exchange begin with 2 to 9.
fn american(groups: &Groups, bracketed: bool) -> bool {
    let skip = usize::from(groups.sizes[0] == 1 && groups.digits[0] == b'1');
    let digits = &groups.digits[skip..];
    let marks = &groups.marks[skip + 1..groups.count.max(skip + 1)];
    let signs = bracketed || groups.marks[skip] == b'(' || marks.iter().all(|mark| *mark == b'-') || {
        marks.iter().all(|mark| *mark == b'.')
    };
    groups.sizes()[skip.min(groups.count)..] == [3, 3, 4]
        && matches!(digits[0], b'2'..=b'9')
        && matches!(digits[3], b'2'..=b'9')
        && signs
}

/// Plans with a trunk prefix: an area code of three digits and more and its number, or five pairs as in France.
fn national(groups: &Groups, bracketed: bool) -> bool {
    let sizes = groups.sizes();
    let total = groups.digits.len();
    let marks = &groups.marks[1..groups.count];
    if !matches!(groups.digits[1], b'1'..=b'9') {
        return false;
    }
    if sizes == [2; 5] {
        let values: Vec<u8> =
            groups.digits.chunks(2).map(|pair| (pair[0] - b'0') * 10 + pair[1] - b'0').collect();
        let counting = values.windows(2).all(|pair| pair[0] + 1 == pair[1]);
        return !counting
            && marks.iter().all(|mark| *mark == marks[0])
            && matches!(marks[0], b' ' | b'.' | b'-');
    }
    (9..=12).contains(&total)
        && (2..=5).contains(&sizes.len())
        && (3..=6).contains(&sizes[0])
        && sizes[1..].iter().all(|size| *size >= 2)
        && (bracketed || !sizes.iter().all(|size| *size == sizes[0]))
        // American postcodes look so.
        && !(sizes == [5, 4] && marks[0] == b'-')
        && !marks.contains(&b'.')
}

/// Whether the number stands in a row of numbers.
fn numbers_before(view: View<'_>, start: usize) -> bool {
    let spaces = view.bytes[..start].iter().rev().take(4).take_while(|&&byte| byte == b' ').count();
    spaces > 0 && view.before(start - spaces).is_ascii_digit()
}

/// Whether the word before a number says that it is a telephone's.
fn told_phone(view: View<'_>, start: usize) -> bool {
    let signs = |byte: &&u8| matches!(byte, b' ' | b'.' | b':' | b'=' | b'"' | b'\'' | b'#' | b'(' | b'\t');
    let gap = view.bytes[..start].iter().rev().take(7).take_while(signs).count();
    let end = start - gap;
    let letters = view.bytes[..end].iter().rev().take(24).take_while(|byte| is_word(**byte)).count();
    let word = view.bytes[end - letters..end].to_ascii_lowercase();
    let whole: &[&[u8]] =
        &[b"tel", b"phone", b"fon", b"fax", b"mobil", b"mobile", b"handy", b"cell", b"call", b"ruf"];
    let start: &[&[u8]] = &[b"telefon", b"telephone", b"phone", b"mobil", b"rufnummer", b"hotline", b"tel_"];
    let last: &[&[u8]] = &[b"phone", b"telefon", b"_tel", b"fax", b"mobil", b"hotline", b"phone_number"];
    gap > 0
        && !word.last().is_some_and(u8::is_ascii_digit)
        && (whole.contains(&word.as_slice())
            || start.iter().any(|begin| word.starts_with(begin))
            || last.iter().any(|end| word.ends_with(end)))
}

/// Whether one of the words stands shortly before a place.
fn told_before(view: View<'_>, start: usize, words: &[&str]) -> bool {
    let before = view.bytes[start.saturating_sub(48)..start].to_ascii_lowercase();
    words.iter().any(|word| memchr::memmem::find(&before, word.as_bytes()).is_some())
}
