//! Texts that a device's camera reads.

use maud::{Markup, html};
use qrcodegen::{QrCode, QrCodeEcc};

/// Modules of light around the code, as ISO/IEC 18004 asks for.
const QUIET: i32 = 4;

/// A text as a QR code, dark on light whatever the reader's colours are; nothing where it is too long for one.
pub(crate) fn code(text: &str, told: &str) -> Option<Markup> {
    let code = QrCode::encode_text(text, QrCodeEcc::Medium).ok()?;
    let size = code.size() + 2 * QUIET;
    Some(html! {
        svg.qr viewBox={ "0 0 " (size) " " (size) } role="img" aria-label=(told) shape-rendering="crispEdges" {
            rect width=(size) height=(size) {}
            path d=(modules(&code)) {}
        }
    })
}

/// The dark modules, each row's neighbours as one stroke.
fn modules(code: &QrCode) -> String {
    let mut path = String::new();
    for y in 0..code.size() {
        let mut x = 0;
        while x < code.size() {
            let length = (x..code.size()).take_while(|x| code.get_module(*x, y)).count() as i32;
            if length > 0 {
                path.push_str(&format!("M{} {}h{length}v1h-{length}z", x + QUIET, y + QUIET));
            }
            x += length + 1;
        }
    }
    path
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_code_is_drawn_module_by_module() {
        let text = "otpauth://totp/Moat:ada?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Moat";
        let code = QrCode::encode_text(text, QrCodeEcc::Medium).unwrap();
        let size = usize::try_from(code.size()).unwrap();
        let mut drawn = vec![vec![false; size]; size];
        for stroke in modules(&code).split('M').skip(1) {
            let numbers: Vec<usize> = stroke
                .split(|letter: char| !letter.is_ascii_digit())
                .filter_map(|number| number.parse().ok())
                .collect();
            let (x, y, length) = (numbers[0] - 4, numbers[1] - 4, numbers[2]);
            drawn[y][x..x + length].fill(true);
        }
        for (y, row) in drawn.iter().enumerate() {
            for (x, dark) in row.iter().enumerate() {
                assert_eq!(*dark, code.get_module(x as i32, y as i32), "{x} {y}");
            }
        }
    }

    #[test]
    fn what_is_too_long_is_not_drawn_and_what_is_told_is_text() {
        assert!(super::code(&"x".repeat(5000), "").is_none());
        assert!(super::code("x", "<b>").unwrap().into_string().contains("aria-label=\"&lt;b&gt;\""));
    }
}
