use std::fmt::Write;

use jiff::Timestamp;

use crate::Health;

pub(crate) const STYLE: &str = include_str!("style.css");

/// How the box stands, for whoever reaches the port.
pub(crate) fn overview(health: &Health) -> String {
    let (state, tone) = match (health.sealed, health.is_well()) {
        (true, _) => ("Sealed", "waits"),
        (false, true) => ("In order", "good"),
        (false, false) => ("Needs a person", "bad"),
    };
    let mut body = format!("<h1>Moat <span class=\"{tone}\">{state}</span></h1>\n");
    // Writing to a String cannot fail, here and below.
    if let Some(wanted) = &health.wanted {
        let _ = writeln!(body, "<p class=\"wanted\">{}</p>", escaped(wanted));
    }
    let _ = writeln!(
        body,
        "<p>Version {}, up {}.</p>",
        escaped(&health.version),
        escaped(&duration(health.uptime))
    );
    body.push_str("<h2>What this process gave up</h2>\n<table><thead><tr><th>Protection</th><th>State</th></tr></thead>\n<tbody>\n");
    for (name, had) in &health.protections {
        let (tone, words) = match had {
            Ok(()) => ("good", "in force".to_owned()),
            Err(why) => ("bad", format!("not to be had: {why}")),
        };
        let _ = writeln!(
            body,
            "<tr><th scope=\"row\">{}</th><td class=\"{tone}\">{}</td></tr>",
            escaped(name),
            escaped(&words)
        );
    }
    body.push_str("</tbody></table>\n<h2>Ways out that are tried</h2>\n");
    match health.tried {
        None => body.push_str("<p>The canary has not flown yet.</p>\n"),
        Some(tried) => {
            let time = Timestamp::from_second(tried).map(|time| time.to_string()).unwrap_or_default();
            let _ = writeln!(body, "<p>Last tried <time datetime=\"{time}\">{time}</time>.</p>");
            body.push_str(
                "<table><thead><tr><th>Way</th><th>Tried</th><th>Open</th></tr></thead>\n<tbody>\n",
            );
            for (way, tries, open) in &health.canary {
                let tone = if *open == 0 { "good" } else { "bad" };
                let _ = writeln!(
                    body,
                    "<tr><th scope=\"row\">{}</th><td>{tries}</td><td class=\"{tone}\">{open}</td></tr>",
                    escaped(way)
                );
            }
            body.push_str("</tbody></table>\n");
        }
    }
    page("Moat", &body)
}

/// A page that is not there, or a request that is none.
pub(crate) fn refusal(status: u16) -> String {
    let words = match status {
        404 => "There is no such page.",
        405 => "This page can only be read.",
        _ => "The request could not be understood.",
    };
    page("Moat", &format!("<h1>{status}</h1>\n<p>{words} <a href=\"/\">How the box stands</a></p>\n"))
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<link rel=\"stylesheet\" href=\"/style.css\">\n</head>\n\
         <body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}
