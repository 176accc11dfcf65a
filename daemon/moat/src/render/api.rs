use serde_json::Value;

use super::table::{Cell, table};
use super::text::clean;
use super::{Tone, View};

/// What the API takes: a line a verb, with the right that it needs and what it does.
pub(super) fn api(view: &View, description: &Value) -> String {
    let paths = description["paths"].as_object();
    let rows: Vec<_> = paths
        .into_iter()
        .flatten()
        .filter_map(|(path, methods)| {
            let (method, what) = methods.as_object()?.iter().next()?;
            let word = |name: &str| clean(what[name].as_str().unwrap_or_default());
            let person = what["x-moat-in-person"].as_bool() == Some(true);
            Some(vec![
                Cell::toned(method.to_uppercase(), Tone::Faint),
                Cell::toned(clean(path), Tone::Strong),
                word("x-moat-right").into(),
                if person { "no key may".into() } else { "".into() },
                word("summary").into(),
            ])
        })
        .collect();
    table(view, &["", "path", "right", "", "what it does"], &rows)
}
