//! The readable text of an HTML page: its title, then blocks as lines, headings as `# `, list items as `- ` or `1. `,
//! table rows with ` | ` between their cells, `pre` verbatim; scripts, styles, navigation, footers and asides left out.

use crate::markup::{Token, Tokens, decode};

/// What an element does to the text around it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Line,
    Paragraph,
    Heading(u8),
    List {
        ordered: bool,
    },
    Item,
    /// Definition lists' terms and descriptions.
    Entry,
    Entries,
    Table,
    Row,
    Cell,
    Pre,
    Break,
    Rule,
    Title,
    Dropped,
}

/// Elements that matter; all others are inline, and only their text counts.
const ELEMENTS: &[(Role, &[&str])] = &[
    (
        Role::Line,
        &[
            "div",
            "section",
            "article",
            "main",
            "header",
            "form",
            "fieldset",
            "legend",
            "figure",
            "figcaption",
            "address",
            "details",
            "summary",
            "hgroup",
            "center",
            "caption",
            "body",
            "html",
            "menuitem",
            "option",
        ],
    ),
    (Role::Paragraph, &["p", "blockquote"]),
    (Role::Heading(1), &["h1"]),
    (Role::Heading(2), &["h2"]),
    (Role::Heading(3), &["h3"]),
    (Role::Heading(4), &["h4"]),
    (Role::Heading(5), &["h5"]),
    (Role::Heading(6), &["h6"]),
    (Role::List { ordered: false }, &["ul", "menu", "dir"]),
    (Role::List { ordered: true }, &["ol"]),
    (Role::Item, &["li"]),
    (Role::Entries, &["dl"]),
    (Role::Entry, &["dt", "dd"]),
    (Role::Table, &["table"]),
    (Role::Row, &["tr"]),
    (Role::Cell, &["td", "th"]),
    (Role::Pre, &["pre", "xmp", "listing"]),
    (Role::Break, &["br"]),
    (Role::Rule, &["hr"]),
    (Role::Title, &["title"]),
    (
        Role::Dropped,
        &[
            "script", "style", "noscript", "template", "nav", "footer", "aside", "iframe", "object",
            "canvas", "audio", "video", "svg", "select", "button", "textarea", "noframes", "noembed", "rp",
        ],
    ),
];

/// Open elements that are told apart; deeper ones only count, so a page of a million `<div>` costs no more than its
/// bytes. Browsers stop at 512 too.
const MAX_DEPTH: usize = 512;
/// List levels that are indented.
const MAX_INDENT: usize = 8;

/// The page's text; not yet in its clean form, since character references can stand for anything.
pub(crate) fn readable(page: &str) -> String {
    let mut walk = Walk { out: String::with_capacity(page.len() / 2), ..Walk::default() };
    for token in Tokens::new(page) {
        match token {
            Token::Text(text) => walk.text(text),
            Token::Start { name, attributes } => {
                if let Some((name, role)) = element(name) {
                    walk.start(name, role, attributes);
                }
            }
            Token::End { name } => {
                if let Some((name, role)) = element(name) {
                    walk.end(name, role);
                }
            }
        }
    }
    walk.finish()
}

fn element(name: &str) -> Option<(&'static str, Role)> {
    ELEMENTS.iter().find_map(|(role, names)| {
        names.iter().find(|known| known.eq_ignore_ascii_case(name)).map(|known| (*known, *role))
    })
}

struct Open {
    name: &'static str,
    role: Role,
    /// Items that an ordered list has given.
    items: u64,
}

#[derive(Default)]
struct Walk {
    out: String,
    title: String,
    stack: Vec<Open>,
    /// Elements open beyond [`MAX_DEPTH`].
    beyond: usize,
    /// Line feeds due before the next word.
    gap: usize,
    /// Whether a space is due before the next word.
    space: bool,
    /// What begins the next line: a heading's or an item's mark.
    mark: String,
    /// Cell borders due before the next word.
    borders: usize,
    /// Whether this row has had its first cell.
    in_row: bool,
    /// Whether a `pre` has just begun, whose first line feed does not count.
    fresh_pre: bool,
    // How many elements of each role are open.
    dropped: usize,
    pre: usize,
    lists: usize,
    cells: usize,
    headings: usize,
    titles: usize,
    others: usize,
}

impl Walk {
    fn start(&mut self, name: &'static str, role: Role, attributes: &str) {
        self.imply_ends(role);
        let role = match role {
            Role::Line | Role::List { .. } if attributes.contains("role=\"navigation\"") => Role::Dropped,
            role => role,
        };
        if role == Role::Break && self.pre > 0 {
            self.text("\n");
            return;
        }
        self.around(role);
        match role {
            Role::Break | Role::Rule => return,
            Role::Heading(level) if self.mark.is_empty() && self.cells == 0 => {
                self.mark = format!("{} ", "#".repeat(usize::from(level)));
            }
            Role::Item => self.mark = self.item_mark(),
            Role::Row => (self.in_row, self.borders) = (false, 0),
            Role::Cell => {
                self.borders += usize::from(self.in_row);
                self.in_row = true;
                self.space = true;
            }
            Role::Pre => self.fresh_pre = true,
            _ => {}
        }
        if self.stack.len() == MAX_DEPTH {
            self.beyond += 1;
            return;
        }
        *self.count(role) += 1;
        self.stack.push(Open { name, role, items: 0 });
    }

    fn end(&mut self, name: &'static str, role: Role) {
        if self.beyond > 0 {
            self.beyond -= 1;
            return;
        }
        // An end tag within a table's cell closes nothing outside it, unless it is the table's own.
        let of_table = matches!(role, Role::Table | Role::Row | Role::Cell);
        let found = self.stack.iter().rposition(|open| {
            open.name == name || (!of_table && matches!(open.role, Role::Table | Role::Cell))
        });
        if let Some(at) = found.filter(|&at| self.stack[at].name == name) {
            self.close_to(at);
        }
    }

    /// Closes all elements from `at` on.
    fn close_to(&mut self, at: usize) {
        while self.stack.len() > at {
            let Some(Open { role, .. }) = self.stack.pop() else { return };
            *self.count(role) -= 1;
            match role {
                // The sign that documentation tools hang on a heading's link.
                Role::Heading(_) => {
                    let kept = self.out.trim_end_matches(['¶', '\u{f0c1}']).len();
                    self.out.truncate(kept);
                    self.mark.clear();
                }
                Role::Item => self.mark.clear(),
                Role::Row => (self.in_row, self.borders) = (false, 0),
                Role::Cell => {
                    self.space = true;
                    continue;
                }
                _ => {}
            }
            self.around(role);
        }
    }

    /// Closes what a start tag closes without an end tag (HTML standard, 13.1.2.4).
    fn imply_ends(&mut self, role: Role) {
        if self.beyond > 0 {
            return;
        }
        let paragraph = self.stack.last().is_some_and(|open| open.name == "p");
        if paragraph && !matches!(role, Role::Break | Role::Dropped | Role::Title) {
            self.close_to(self.stack.len() - 1);
        }
        let within: fn(Role) -> bool = match role {
            Role::Item => |role| matches!(role, Role::List { .. }),
            Role::Entry => |role| role == Role::Entries,
            Role::Row => |role| role == Role::Table,
            Role::Cell => |role| matches!(role, Role::Row | Role::Table),
            _ => return,
        };
        let found = self.stack.iter().rposition(|open| open.role == role || within(open.role));
        if let Some(at) = found.filter(|&at| self.stack[at].role == role) {
            self.close_to(at);
        }
    }

    /// The break that an element makes before and after itself.
    fn around(&mut self, role: Role) {
        let (lines, soft) = match role {
            Role::Line | Role::Break | Role::Entry => (1, true),
            Role::Paragraph | Role::Rule => (2, true),
            Role::Entries => (2, false),
            Role::Heading(_) | Role::Table | Role::Pre | Role::List { .. } => (2, false),
            Role::Item | Role::Row => (1, false),
            Role::Cell | Role::Title | Role::Dropped => return,
        };
        if soft && (self.cells > 0 || self.headings > 0) {
            self.space = true;
        } else {
            let tight = self.lists > 0 || self.cells > 0;
            self.gap = self.gap.max(if tight { 1 } else { lines });
        }
    }

    fn item_mark(&mut self) -> String {
        let depth = self.lists.saturating_sub(1).min(MAX_INDENT);
        let list = self.stack.iter_mut().rev().find(|open| matches!(open.role, Role::List { .. }));
        let sign = match list {
            Some(Open { role: Role::List { ordered: true }, items, .. }) => {
                *items += 1;
                format!("{items}. ")
            }
            _ => "- ".to_owned(),
        };
        "  ".repeat(depth) + &sign
    }

    fn count(&mut self, role: Role) -> &mut usize {
        match role {
            Role::Dropped => &mut self.dropped,
            Role::Pre => &mut self.pre,
            Role::List { .. } => &mut self.lists,
            Role::Cell => &mut self.cells,
            Role::Heading(_) => &mut self.headings,
            Role::Title => &mut self.titles,
            _ => &mut self.others,
        }
    }

    fn text(&mut self, text: &str) {
        if self.dropped > 0 {
            return;
        }
        if self.titles > 0 {
            // A page has one title; what stands in a second one is somebody's mistake.
            if self.title.is_empty() {
                decode(text, |piece| self.title.push_str(piece));
            }
            return;
        }
        let mut text = text;
        if self.fresh_pre {
            self.fresh_pre = false;
            text = text.strip_prefix('\n').unwrap_or(text);
        }
        decode(text, |piece| {
            if self.pre > 0 {
                if !piece.is_empty() {
                    self.space = false;
                    self.settle();
                    self.out.push_str(piece);
                }
                return;
            }
            for c in piece.chars() {
                if matches!(c, '\t' | '\n' | '\u{c}' | '\r' | ' ' | '\u{a0}') {
                    self.space = true;
                } else {
                    self.settle();
                    self.out.push(c);
                }
            }
        });
    }

    /// Puts down the line ends, marks, borders or the space that are due before a word.
    fn settle(&mut self) {
        let (gap, space) = (std::mem::take(&mut self.gap), std::mem::take(&mut self.space));
        if gap > 0 {
            self.out.truncate(self.out.trim_end_matches([' ', '\n']).len());
            if !self.out.is_empty() {
                self.out.extend(std::iter::repeat_n('\n', gap));
            }
        }
        let borders = std::mem::take(&mut self.borders);
        let line_start = self.out.is_empty() || self.out.ends_with('\n');
        if !self.mark.is_empty() {
            self.out.push_str(&std::mem::take(&mut self.mark));
        } else if borders > 0 {
            self.out.push_str(if line_start { "| " } else { " | " });
            self.out.extend(std::iter::repeat_n("| ", borders - 1));
        } else if space && !line_start {
            self.out.push(' ');
        }
    }

    fn finish(mut self) -> String {
        self.out.truncate(self.out.trim_end().len());
        let title = self.title.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        let first = self.out.lines().next().unwrap_or("").trim_start_matches(['#', ' ']);
        if title.is_empty() || title == first {
            return self.out;
        }
        format!("{title}\n\n{}", self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::readable;

    #[test]
    fn a_page_reads_as_a_person_reads_it() {
        let page = "<!DOCTYPE html><html><head><title>Wells &amp; pumps</title><style>p{}</style>\
            <script>if (a < b) document.write('<p>no</p>')</script></head>\n<body><nav><ul><li>Home</ul></nav>\n\
            <h1>Pumps<a href=#p>¶</a></h1>\n<p>A pump <b>lifts</b>\n water.<p>It is <a href=x>made</a>&nbsp;of steel.\n\
            <ul><li>one\n<li><p>two</p><ol><li>inner</li><li>second</ol></ul>\n<pre>\n  x = 1\n    y\n</pre>\n\
            <table><tr><th>name<th>size<tr><td>small</td><td></td><td><p>3</p><p>4</p></table>after\
            <dl><dt>term<dd>meaning</dl><footer>imprint</footer></body></html>";
        assert_eq!(
            readable(page),
            "Wells & pumps\n\n# Pumps\n\nA pump lifts water.\n\nIt is made of steel.\n\n- one\n- two\n  1. inner\n  \
             2. second\n\n  x = 1\n    y\n\nname | size\nsmall | | 3 4\n\nafter\n\nterm\nmeaning"
        );
    }

    #[test]
    fn what_is_left_open_loses_nothing_else() {
        assert_eq!(readable("<div><nav>menu</div><p>text"), "text");
        assert_eq!(readable("<table><tr><td><div>a</table>b</div>"), "a\n\nb");
        assert_eq!(readable("<title>T</title><h2>T</h2>x"), "## T\n\nx");
        assert_eq!(readable("</p></div>plain & simple"), "plain & simple");
    }

    #[test]
    fn depth_costs_nothing() {
        let deep = "<div>".repeat(200_000) + "core" + &"</div>".repeat(200_000) + "<p>after";
        assert_eq!(readable(&deep), "core\n\nafter");
        let lists = "<ul><li>x".repeat(100_000);
        assert!(readable(&lists).len() < 3 * lists.len());
    }
}
