//! Who may read a file, from its mode bits.

use std::collections::HashMap;
use std::fs;

/// The names that the machine gives to users and groups. Where it has none for a number, the number stands.
pub(crate) struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    /// Reads the machine's own tables. Users of a directory service have their numbers.
    pub(crate) fn of_machine() -> Self {
        let table = |path| fs::read(path).map(|bytes| parse(&String::from_utf8_lossy(&bytes)));
        // A machine without these tables is one on which every user is a number.
        Self {
            users: table("/etc/passwd").unwrap_or_default(),
            groups: table("/etc/group").unwrap_or_default(),
        }
    }

    /// Readers in the words of [`moat_contracts::Document::readers`].
    pub(crate) fn readers(&self, mode: u32, user: u32, group: u32) -> Vec<String> {
        let name = |table: &HashMap<u32, String>, number: u32| {
            table.get(&number).cloned().unwrap_or_else(|| number.to_string())
        };
        let mut readers = Vec::new();
        if mode & 0o400 != 0 {
            readers.push(format!("user:{}", name(&self.users, user)));
        }
        if mode & 0o040 != 0 {
            readers.push(format!("group:{}", name(&self.groups, group)));
        }
        if mode & 0o004 != 0 {
            readers.push("other".to_owned());
        }
        readers
    }
}

/// Lines of `name:secret:number:...`, as passwd(5) and group(5) have them; the first name of a number counts.
fn parse(table: &str) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in table.lines() {
        let mut fields = line.split(':');
        let name = fields.next().unwrap_or_default();
        let number = fields.nth(1).and_then(|number| number.parse().ok());
        if let Some(number) = number.filter(|_| !name.is_empty()) {
            names.entry(number).or_insert_with(|| name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::{Names, parse};

    #[test]
    fn mode_bits_name_the_readers() {
        let names = Names {
            users: parse("root:x:0:0::/root:/bin/sh\nann:x:7:7::/:\n\n#\n"),
            groups: parse("staff:x:50:"),
        };
        assert_eq!(names.readers(0o644, 7, 50), ["user:ann", "group:staff", "other"]);
        assert_eq!(names.readers(0o640, 8, 51), ["user:8", "group:51"]);
        assert_eq!(names.readers(0o004, 7, 50), ["other"]);
        assert!(names.readers(0o000, 7, 50).is_empty());
    }
}
