//! What `strace` saw of a daemon and its engines: the calls that change the file system below a site, with their bytes,
//! and the frames that went out on sockets.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The calls to trace: all that change files or names in a way that this kernel knows, and all that send.
pub(crate) const CALLS: &str = "open,openat,openat2,creat,lseek,write,writev,pwrite64,pwritev,pwritev2,truncate,ftruncate,\
    fallocate,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir,fsync,fdatasync,\
    msync,sync,syncfs,sync_file_range,mmap,copy_file_range,sendfile,splice,sendto,sendmsg,io_uring_setup";

/// What a call did. Calls that failed did nothing. Paths are relative to the site.
#[derive(Debug)]
pub(crate) enum Call {
    /// A file was opened for writing.
    Opened {
        path: PathBuf,
        fd: u32,
        truncate: bool,
        append: bool,
    },
    /// Bytes went to a place, or to where the descriptor stood.
    Written {
        path: PathBuf,
        fd: u32,
        at: Option<u64>,
        bytes: Vec<u8>,
    },
    /// The descriptor stands at a place.
    Moved {
        path: PathBuf,
        fd: u32,
        to: u64,
    },
    /// A file was cut or extended.
    Cut {
        path: PathBuf,
        length: u64,
    },
    /// A file or folder was synced: what was done before the event of this number is on the disk.
    Synced {
        path: PathBuf,
        since: usize,
    },
    Renamed {
        from: PathBuf,
        to: PathBuf,
    },
    Unlinked(PathBuf),
    FolderMade(PathBuf),
    FolderRemoved(PathBuf),
    /// Bytes were about to go out on a socket.
    Sent(Vec<u8>),
}

/// A descriptor as `strace -y` shows it.
struct Descriptor {
    number: u32,
    path: PathBuf,
    deleted: bool,
}

/// Calls in the order of their ends, which is an order in which they can have taken effect; what is sent, by its
/// beginning, since nobody knows when the other side reads it.
pub(crate) struct Trace {
    site: PathBuf,
    /// The entries of the site that are looked at.
    roots: Vec<&'static str>,
    pub(crate) calls: Vec<Call>,
    /// Calls that began and did not end yet, by thread: their text and the number of calls at their beginning.
    begun: HashMap<String, (String, usize)>,
}

impl Trace {
    pub(crate) fn new(site: &Path, roots: &[&'static str]) -> Self {
        Self { site: site.to_owned(), roots: roots.to_owned(), calls: Vec::new(), begun: HashMap::new() }
    }

    /// Takes in one more file of `strace -f -y -xx`.
    pub(crate) fn read(&mut self, text: &str) {
        self.begun.clear();
        for line in text.lines() {
            self.line(line);
        }
    }

    fn line(&mut self, line: &str) {
        let (thread, rest) = line.split_once(' ').unwrap();
        let rest = rest.trim_start();
        if rest.starts_with("+++") || rest.starts_with("---") {
            return;
        }
        if let Some(resumed) = rest.strip_prefix("<... ") {
            // A call that began before this thread was seen has changed nothing below the site.
            let Some((begun, since)) = self.begun.remove(thread) else { return };
            let (_, end) = resumed.split_once(" resumed>").unwrap();
            if !begun.starts_with("send") {
                self.call(&format!("{begun}{end}"), since);
            }
        } else if let Some(begun) = rest.strip_suffix("<unfinished ...>") {
            if begun.starts_with("send") {
                self.send(begun);
            }
            self.begun.insert(thread.to_owned(), (begun.trim_end().to_owned(), self.calls.len()));
        } else if rest.starts_with("send") {
            self.send(rest);
        } else {
            self.call(rest, self.calls.len());
        }
    }

    fn send(&mut self, text: &str) {
        if text.starts_with("sendto(")
            && let Some(bytes) = text.split(", ").nth(1).filter(|word| word.starts_with('"'))
        {
            self.calls.push(Call::Sent(unquoted(bytes)));
        }
    }

    fn call(&mut self, text: &str, since: usize) {
        let Some((name, rest)) = text.split_once('(') else { panic!("no call: {text}") };
        let (arguments, result) = rest.rsplit_once(" = ").unwrap_or_else(|| panic!("no result: {text}"));
        // A call that a kill cut off, or that failed.
        if result.starts_with('?') || result.starts_with('-') {
            return;
        }
        let arguments = arguments.trim_end();
        let arguments = arguments.strip_suffix(')').unwrap_or_else(|| panic!("no end: {text}"));
        let words: Vec<&str> = arguments.split(", ").collect();
        let call = match name {
            "open" | "openat" => self.opened(words[if name == "open" { 1 } else { 2 }], result),
            "lseek" => self.on(words[0], |path, fd| Call::Moved { path, fd, to: number(result) }),
            "write" | "pwrite64" => {
                let Some(descriptor) = self.below(words[0]) else { return };
                let mut bytes = unquoted(words[1]);
                bytes.truncate(number(result) as usize);
                let at = words.get(3).map(|place| number(place));
                Some(Call::Written { path: descriptor.path, fd: descriptor.number, at, bytes })
            }
            "writev" => {
                let Some(descriptor) = self.below(words[0]) else { return };
                let parts = arguments.split("iov_base=").skip(1);
                let mut bytes: Vec<u8> =
                    parts.flat_map(|part| unquoted(part.split(", ").next().unwrap())).collect();
                bytes.truncate(number(result) as usize);
                Some(Call::Written { path: descriptor.path, fd: descriptor.number, at: None, bytes })
            }
            "ftruncate" => self.on(words[0], |path, _| Call::Cut { path, length: number(words[1]) }),
            "fsync" | "fdatasync" => self.on(words[0], |path, _| Call::Synced { path, since }),
            "rename" => self.renamed(words[0], words[1]),
            "renameat" | "renameat2" => self.renamed(words[1], words[3]),
            "unlink" => self.named(words[0]).map(Call::Unlinked),
            "unlinkat" => {
                let removed =
                    if words[2].contains("AT_REMOVEDIR") { Call::FolderRemoved } else { Call::Unlinked };
                self.named_at(words[0], words[1]).map(removed)
            }
            "mkdir" => self.named(words[0]).map(Call::FolderMade),
            "mkdirat" => self.named_at(words[0], words[1]).map(Call::FolderMade),
            "rmdir" => self.named(words[0]).map(Call::FolderRemoved),
            "mmap" => {
                let shared = words[3].contains("MAP_SHARED") && words[2].contains("PROT_WRITE");
                let mapped = self.below(words[4]).filter(|_| shared);
                assert!(mapped.is_none(), "a file that must last is written through memory: {text}");
                None
            }
            "sync" | "syncfs" => panic!("{name} is not modelled"),
            // Harmless elsewhere, unknown to the model here.
            _ => {
                let touches = words.iter().any(|word| self.below(word).is_some());
                let named = words.iter().any(|word| word.starts_with('"') && self.named(word).is_some());
                assert!(!touches && !named, "not modelled: {text}");
                None
            }
        };
        self.calls.extend(call);
    }

    fn opened(&self, flags: &str, result: &str) -> Option<Call> {
        if !flags.contains("O_WRONLY") && !flags.contains("O_RDWR") {
            return None;
        }
        assert!(
            !["O_SYNC", "O_DSYNC", "O_TMPFILE", "O_DIRECT"].iter().any(|flag| flags.contains(flag)),
            "{flags}"
        );
        let Descriptor { number: fd, path, .. } = self.below(result)?;
        let (truncate, append) = (flags.contains("O_TRUNC"), flags.contains("O_APPEND"));
        Some(Call::Opened { path, fd, truncate, append })
    }

    fn renamed(&self, from: &str, to: &str) -> Option<Call> {
        match (self.named(from), self.named(to)) {
            (Some(from), Some(to)) => Some(Call::Renamed { from, to }),
            (None, None) => None,
            _ => panic!("renamed into or out of what is looked at: {from} to {to}"),
        }
    }

    fn on(&self, word: &str, make: impl FnOnce(PathBuf, u32) -> Call) -> Option<Call> {
        self.below(word).map(|descriptor| make(descriptor.path, descriptor.number))
    }

    /// A descriptor of a file or folder that is looked at and still has a name.
    fn below(&self, word: &str) -> Option<Descriptor> {
        let (number, rest) = word.split_once('<')?;
        let (path, after) = rest.rsplit_once('>')?;
        let path = self.inside(&decoded(path))?;
        let descriptor =
            Descriptor { number: number.parse().ok()?, path, deleted: after.contains("deleted") };
        (!descriptor.deleted).then_some(descriptor)
    }

    fn named(&self, word: &str) -> Option<PathBuf> {
        self.inside(&unquoted(word))
    }

    fn named_at(&self, folder: &str, word: &str) -> Option<PathBuf> {
        let name = PathBuf::from(OsString::from_vec(unquoted(word)));
        if name.is_absolute() {
            return self.named(word);
        }
        let (_, rest) = folder.split_once('<')?;
        let folder = PathBuf::from(OsString::from_vec(decoded(rest.rsplit_once('>')?.0)));
        self.inside(folder.join(name).as_os_str().as_encoded_bytes())
    }

    /// A path relative to the site, where it is looked at. What SQLite shares between processes (`-shm`) is made anew from
    /// the log by whoever opens it first, and so is not.
    fn inside(&self, path: &[u8]) -> Option<PathBuf> {
        let path = PathBuf::from(OsString::from_vec(path.to_vec()));
        let path = path.strip_prefix(&self.site).ok()?;
        let first = path.components().next();
        let known = first.is_none_or(|first| self.roots.iter().any(|root| first.as_os_str() == *root));
        (known && !path.as_os_str().as_encoded_bytes().ends_with(b"-shm")).then(|| path.to_owned())
    }
}

fn number(word: &str) -> u64 {
    let digits = word.split(|letter: char| !letter.is_ascii_digit()).next().unwrap();
    digits.parse().unwrap_or_else(|_| panic!("no number: {word}"))
}

/// The bytes of a string that `strace -xx` wrote.
fn unquoted(word: &str) -> Vec<u8> {
    let (_, rest) = word.split_once('"').unwrap_or_else(|| panic!("no string: {word}"));
    let (inside, after) = rest.rsplit_once('"').unwrap();
    assert!(!after.contains("..."), "strace cut a string");
    decoded(inside)
}

fn decoded(text: &str) -> Vec<u8> {
    let digit = |digit: u8| (digit as char).to_digit(16).unwrap() as u8;
    let (mut bytes, mut found) = (text.as_bytes(), Vec::with_capacity(text.len() / 4));
    while let Some(first) = bytes.first() {
        match bytes {
            [b'\\', b'x', high, low, rest @ ..] => {
                found.push(digit(*high) << 4 | digit(*low));
                bytes = rest;
            }
            _ => {
                found.push(*first);
                bytes = &bytes[1..];
            }
        }
    }
    found
}
