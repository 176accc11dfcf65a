//! A disk that is told what was done, and shows what may be found after a kill or after a power cut.
//!
//! After a kill everything is there. After a power cut there is for certain only what was synced: a file's bytes and
//! length by a sync of that file, a folder's names by a sync of that folder; POSIX promises no more. Of the rest any part
//! may be there: of a file's writes any sectors of 512 bytes, in any order, with zeros where the file grew and the
//! bytes are missing; of a folder's names what was done to them up to any moment, each folder for itself. Granted is
//! what every journaling file system does and the product leans on: a sector is written whole, a change of names is done
//! or not, a rename too (none of the product's leaves its folder), and the changes of one folder keep their order.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use moat_contracts::{Digest, Hasher};

use crate::site::Random;
use crate::trace::Call;

const SECTOR: usize = 512;
const PAGE: usize = 4096;

/// A file's bytes, with their digest once it was asked for.
#[derive(Debug, Default, Clone)]
pub(crate) struct Content {
    pub(crate) bytes: Vec<u8>,
    digest: OnceLock<Digest>,
}

impl Content {
    fn of(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { bytes, digest: OnceLock::new() })
    }

    fn digest(&self) -> &Digest {
        self.digest.get_or_init(|| Digest::of(&self.bytes))
    }
}

/// What was found on the disk.
#[derive(Default, Clone)]
pub(crate) struct Image {
    pub(crate) folders: BTreeSet<PathBuf>,
    pub(crate) files: BTreeMap<PathBuf, Arc<Content>>,
}

impl Image {
    /// Reads what lies below a folder, those of its entries that are named.
    pub(crate) fn read(folder: &Path, roots: &[&str]) -> Self {
        let mut image = Self::default();
        let mut left: Vec<PathBuf> = roots.iter().map(PathBuf::from).collect();
        while let Some(path) = left.pop() {
            let place = folder.join(&path);
            if place.is_dir() {
                left.extend(fs::read_dir(&place).unwrap().map(|entry| path.join(entry.unwrap().file_name())));
                image.folders.insert(path);
            } else if place.is_file() && !path.as_os_str().as_encoded_bytes().ends_with(b"-shm") {
                image.files.insert(path, Content::of(fs::read(place).unwrap()));
            }
        }
        image
    }

    /// Lays it out in a folder that holds none of it, but folders perhaps.
    pub(crate) fn write(&self, folder: &Path) {
        for path in &self.folders {
            fs::create_dir_all(folder.join(path)).unwrap();
        }
        for (path, content) in &self.files {
            fs::write(folder.join(path), &content.bytes).unwrap();
        }
    }

    /// Names all of it.
    pub(crate) fn digest(&self) -> Digest {
        let mut hasher = Hasher::default();
        for path in &self.folders {
            hasher.update(path.as_os_str().as_encoded_bytes());
            hasher.update(b"/\0");
        }
        for (path, content) in &self.files {
            hasher.update(path.as_os_str().as_encoded_bytes());
            hasher.update(b"\0");
            hasher.update(content.digest().as_bytes());
        }
        hasher.finish()
    }
}

#[derive(Clone)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Clone)]
enum Step {
    Put(OsString, usize),
    Removed(OsString),
    Moved(OsString, OsString),
}

#[derive(Default, Clone)]
struct FileNode {
    /// What is on the disk for certain.
    durable: Arc<Content>,
    /// What programs see.
    live: Arc<Content>,
    /// What lies between the two, with the numbers of the events.
    pending: Vec<(usize, Change)>,
}

#[derive(Default, Clone)]
struct FolderNode {
    durable: BTreeMap<OsString, usize>,
    live: BTreeMap<OsString, usize>,
    pending: Vec<(usize, Step)>,
}

#[derive(Clone)]
enum Node {
    File(FileNode),
    Folder(FolderNode),
}

/// Where a descriptor stands in a file.
#[derive(Clone)]
struct Place {
    at: u64,
    append: bool,
}

#[derive(Clone)]
pub(crate) struct Disk {
    nodes: Vec<Node>,
    /// By file and descriptor. Two processes that write one file through descriptors of one number would share a place:
    /// what is read back at the end shows that none do.
    places: HashMap<(usize, u32), Place>,
    /// How many events it was told, and how many of them before the story that is being told.
    events: usize,
    before: usize,
}

const ROOT: usize = 0;

impl Disk {
    /// A disk on which this lies, all of it synced.
    pub(crate) fn of(image: &Image) -> Self {
        let mut disk = Self {
            nodes: vec![Node::Folder(FolderNode::default())],
            places: HashMap::new(),
            events: 0,
            before: 0,
        };
        for path in &image.folders {
            disk.create(path, Node::Folder(FolderNode::default()));
        }
        for (path, content) in &image.files {
            let file = FileNode { durable: content.clone(), live: content.clone(), pending: Vec::new() };
            disk.create(path, Node::File(file));
        }
        for node in &mut disk.nodes {
            if let Node::Folder(folder) = node {
                (folder.durable, folder.pending) = (folder.live.clone(), Vec::new());
            }
        }
        disk
    }

    /// The same disk, after a kill, for the story that begins then: what is not synced yet is still not.
    pub(crate) fn after_this(mut self) -> Self {
        self.before = self.events;
        self
    }

    /// Does what the next call did.
    pub(crate) fn apply(&mut self, call: &Call) {
        let event = self.events;
        self.events += 1;
        match call {
            Call::Opened { path, fd, truncate, append } => {
                let node = match self.find(path) {
                    Some(node) => node,
                    None => self.create(path, Node::File(FileNode::default())),
                };
                self.places.insert((node, *fd), Place { at: 0, append: *append });
                if *truncate && !self.file(node).live.bytes.is_empty() {
                    self.change(node, event, Change::Length(0));
                }
            }
            Call::Moved { path, fd, to } => {
                let node = self.known(path);
                if let Some(place) = self.places.get_mut(&(node, *fd)) {
                    place.at = *to;
                }
            }
            Call::Written { path, fd, at, bytes } => {
                let node = self.known(path);
                let end = self.file(node).live.bytes.len() as u64;
                let at = match at {
                    Some(at) => *at,
                    None => {
                        let place = self.places.get_mut(&(node, *fd)).unwrap();
                        let at = if place.append { end } else { place.at };
                        place.at = at + bytes.len() as u64;
                        at
                    }
                };
                self.change(node, event, Change::Write { at: at as usize, bytes: bytes.clone() });
            }
            Call::Cut { path, length } => {
                let node = self.known(path);
                self.change(node, event, Change::Length(*length as usize));
            }
            Call::Synced { path, since } => {
                let node = self.known(path);
                self.sync(node, self.before + *since);
            }
            Call::Renamed { from, to } => {
                assert_eq!(from.parent(), to.parent(), "a rename from folder to folder is not modelled");
                let name = |path: &Path| path.file_name().unwrap().to_owned();
                self.name(from, Step::Moved(name(from), name(to)));
            }
            Call::Unlinked(path) | Call::FolderRemoved(path) => {
                self.name(path, Step::Removed(path.file_name().unwrap().to_owned()));
            }
            Call::FolderMade(path) => {
                self.create(path, Node::Folder(FolderNode::default()));
            }
            Call::Sent(_) => {}
        }
    }

    fn find(&self, path: &Path) -> Option<usize> {
        path.iter().try_fold(ROOT, |node, name| match &self.nodes[node] {
            Node::Folder(folder) => folder.live.get(name).copied(),
            Node::File(_) => None,
        })
    }

    fn known(&self, path: &Path) -> usize {
        self.find(path).unwrap_or_else(|| panic!("{} is not known to the model", path.display()))
    }

    fn file(&mut self, node: usize) -> &mut FileNode {
        match &mut self.nodes[node] {
            Node::File(file) => file,
            Node::Folder(_) => panic!("a folder is written"),
        }
    }

    fn create(&mut self, path: &Path, node: Node) -> usize {
        self.nodes.push(node);
        let new = self.nodes.len() - 1;
        self.name(path, Step::Put(path.file_name().unwrap().to_owned(), new));
        new
    }

    /// Changes the names in the folder that a path lies in.
    fn name(&mut self, path: &Path, step: Step) {
        let (above, event) = (self.known(path.parent().unwrap()), self.events.saturating_sub(1));
        let Node::Folder(folder) = &mut self.nodes[above] else { panic!("{} is no folder", path.display()) };
        step.take(&mut folder.live);
        folder.pending.push((event, step));
    }

    fn change(&mut self, node: usize, event: usize, change: Change) {
        let file = self.file(node);
        let mut content = std::mem::take(&mut file.live);
        let live = Arc::make_mut(&mut content);
        live.digest = OnceLock::new();
        change.make(&mut live.bytes);
        file.live = content;
        file.pending.push((event, change));
    }

    fn sync(&mut self, node: usize, since: usize) {
        match &mut self.nodes[node] {
            Node::File(file) => {
                let kept = file.pending.partition_point(|(event, _)| *event < since);
                if kept == file.pending.len() {
                    (file.durable, file.pending) = (file.live.clone(), Vec::new());
                } else {
                    let mut bytes = file.durable.bytes.clone();
                    file.pending.drain(..kept).for_each(|(_, change)| change.make(&mut bytes));
                    file.durable = Content::of(bytes);
                }
            }
            Node::Folder(folder) => {
                let kept = folder.pending.partition_point(|(event, _)| *event < since);
                folder.pending.drain(..kept).for_each(|(_, step)| step.take(&mut folder.durable));
            }
        }
    }

    /// What is found after a kill: everything that was done.
    pub(crate) fn after_a_kill(&self) -> Image {
        self.image(|_, folder| folder.live.clone(), |file| file.live.clone())
    }

    /// What is found after a kill in the middle of a call: a part of what it was writing, where that is on more than one
    /// page. Nothing, where it is another call: between two pages alone does the kernel look for a signal that kills.
    pub(crate) fn after_a_kill_within(&self, call: &Call, random: &mut Random) -> Option<Image> {
        let Call::Written { path, fd, at, bytes } = call else { return None };
        let place = self.places.get(&(self.known(path), *fd));
        let at = at.or_else(|| place.filter(|place| !place.append).map(|place| place.at))? as usize;
        let pages = (at / PAGE + 1)..(at + bytes.len()).div_ceil(PAGE);
        let page = pages.start + random.below(pages.len().max(1) as u64) as usize;
        let part = pages.contains(&page).then(|| page * PAGE - at)?;
        let mut image = self.after_a_kill();
        let mut written = image.files.get(path)?.bytes.clone();
        Change::Write { at, bytes: bytes[..part].to_vec() }.make(&mut written);
        image.files.insert(path.clone(), Content::of(written));
        Some(image)
    }

    /// What is found after the power was cut: one of the many things that may be.
    pub(crate) fn after_a_cut(&self, random: &mut Random) -> Image {
        let style = random.below(5);
        let moment = random.below(self.events as u64 + 1) as usize;
        let mut draws = Random(random.next());
        let names = |random: &mut Random, folder: &FolderNode| {
            let all = folder.pending.len();
            let kept = match style {
                0 => 0,
                1 => all,
                // As a journal of the whole disk keeps them.
                2 => folder.pending.partition_point(|(event, _)| *event < moment),
                _ => random.below(all as u64 + 1) as usize,
            };
            let mut names = folder.durable.clone();
            folder.pending[..kept].iter().for_each(|(_, step)| step.take(&mut names));
            names
        };
        let mut others = Random(random.next());
        self.image(
            |_, folder| names(&mut draws, folder),
            |file| if file.pending.is_empty() { file.durable.clone() } else { file.after_a_cut(&mut others) },
        )
    }

    fn image(
        &self,
        mut names: impl FnMut(usize, &FolderNode) -> BTreeMap<OsString, usize>,
        mut content: impl FnMut(&FileNode) -> Arc<Content>,
    ) -> Image {
        let mut image = Image::default();
        let mut left = vec![(PathBuf::new(), ROOT)];
        while let Some((path, node)) = left.pop() {
            match &self.nodes[node] {
                Node::File(file) => _ = image.files.insert(path, content(file)),
                Node::Folder(folder) => {
                    let below = names(node, folder).into_iter();
                    left.extend(below.map(|(name, node)| (path.join(name), node)));
                    if node != ROOT {
                        image.folders.insert(path);
                    }
                }
            }
        }
        image
    }
}

impl Step {
    fn take(&self, names: &mut BTreeMap<OsString, usize>) {
        match self {
            Self::Put(name, node) => _ = names.insert(name.clone(), *node),
            Self::Removed(name) => _ = names.remove(name),
            Self::Moved(from, to) => {
                let node = names.remove(from).unwrap();
                names.insert(to.clone(), node);
            }
        }
    }
}

impl Change {
    fn make(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => put(content, *at, bytes),
            Self::Length(length) => content.resize(*length, 0),
        }
    }

    /// Makes those sectors of it that `kept` picks.
    fn make_in_part(&self, content: &mut Vec<u8>, mut kept: impl FnMut() -> bool) {
        match self {
            Self::Write { at, bytes } => {
                let mut from = 0;
                while from < bytes.len() {
                    let until = ((at + from) / SECTOR * SECTOR + SECTOR - at).min(bytes.len());
                    if kept() {
                        put(content, at + from, &bytes[from..until]);
                    }
                    from = until;
                }
            }
            Self::Length(_) if !kept() => {}
            Self::Length(_) => self.make(content),
        }
    }
}

fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[at..end].copy_from_slice(bytes);
}

impl FileNode {
    fn after_a_cut(&self, random: &mut Random) -> Arc<Content> {
        match random.below(6) {
            0 => return self.durable.clone(),
            1 => return self.live.clone(),
            _ => {}
        }
        let mut bytes = self.durable.bytes.clone();
        let all = self.pending.len() as u64;
        match random.below(3) {
            // In order, up to a moment, the last one torn.
            0 => {
                let (whole, torn) = self.pending.split_at(random.below(all) as usize);
                whole.iter().for_each(|(_, change)| change.make(&mut bytes));
                torn[0].1.make_in_part(&mut bytes, || random.below(2) == 0);
            }
            // All of them but one, or a part of one.
            1 => {
                let lost = random.below(all) as usize;
                for (number, (_, change)) in self.pending.iter().enumerate() {
                    if number == lost {
                        change.make_in_part(&mut bytes, || random.below(2) == 0);
                    } else {
                        change.make(&mut bytes);
                    }
                }
            }
            // Any sectors of any of them, many or few; and the length, as it was to be, or as they leave it.
            _ => {
                let (kept, of) = (random.below(8) + 1, 9);
                for (_, change) in &self.pending {
                    change.make_in_part(&mut bytes, || random.below(of) < kept);
                }
                if random.below(2) == 0 {
                    bytes.resize(self.live.bytes.len(), 0);
                }
            }
        }
        Content::of(bytes)
    }
}
