//! People at a site: accounts with passwords, codes as Debian's oathtool makes them, and users of the machine.

use std::cell::Cell;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use moat_protocol::control::{
    Fault, NewAccount, Proof, Reply, Request, Secret, SourceDefinition, SourceStatus, Statement,
};

use super::Site;

/// Seconds of a code.
const STEP: u64 = 30;

pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) uid: Option<u32>,
    pub(crate) password: String,
    secret: String,
    /// The step of the last code that was used.
    used: Cell<u64>,
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

impl Person {
    pub(crate) fn new(name: &str, uid: Option<u32>, password: &str, uri: &str) -> Self {
        let secret = uri.split("secret=").nth(1).unwrap().split('&').next().unwrap().to_owned();
        Self { name: name.to_owned(), uid, password: password.to_owned(), secret, used: Cell::new(0) }
    }

    /// The code of a step.
    fn code(&self, step: u64) -> String {
        let mut oathtool = Command::new("oathtool");
        oathtool.args(["--totp", "--base32", "--now", &format!("@{}", step * STEP), &self.secret]);
        let output = oathtool.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Password and a code that was not used: the daemon takes those of the steps before and after this one too.
    pub(crate) fn proof(&self) -> Proof {
        loop {
            let step = (now() / STEP - 1).max(self.used.get() + 1);
            if step <= now() / STEP + 1 {
                self.used.set(step);
                return self.proof_with(&self.code(step));
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    pub(crate) fn proof_with(&self, code: &str) -> Proof {
        Proof {
            name: Some(self.name.clone()),
            password: Secret(self.password.clone()),
            code: Secret(code.to_owned()),
        }
    }
}

/// Whether this test may be several users; says so where not.
pub(crate) fn can_be_others() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: only root can call as several users of the machine");
    }
    root
}

pub(crate) const OPERATOR: u32 = 0;
pub(crate) const ADA: u32 = 60_001;
pub(crate) const BEN: u32 = 60_002;

impl Site {
    /// Makes accounts: name, roles, user of the machine.
    pub(crate) fn set_up(&self, accounts: &[(&str, &str, Option<u32>)]) -> Vec<Person> {
        let password =
            |name: &str| format!("would not be guessed {}", name.bytes().map(u64::from).sum::<u64>());
        let new = accounts.iter().map(|(name, roles, uid)| NewAccount {
            name: (*name).to_owned(),
            uid: *uid,
            roles: roles.split(',').map(ToOwned::to_owned).collect(),
            password: Secret(password(name)),
        });
        let reply = self.call(Request::SetUp { accounts: new.collect() });
        let Reply::Made(made) = reply else { panic!("{reply:?}") };
        let people = accounts.iter().zip(made);
        people.map(|((name, _, uid), made)| Person::new(name, *uid, &password(name), &made.uri.0)).collect()
    }

    /// The usual people: root, who runs the box and owns no secret; Ada, who asks; Ben, who agrees.
    pub(crate) fn set_up_three(&self) -> [Person; 3] {
        let people = self.set_up(&[
            ("operator", "steward,engineer,admin,auditor", Some(OPERATOR)),
            ("ada", "steward,engineer,admin", Some(ADA)),
            ("ben", "approver", Some(BEN)),
        ]);
        people.try_into().unwrap_or_else(|_| panic!())
    }

    /// Calls as another user of the machine: the kernel tells the daemon who the calling thread was when it connected.
    pub(crate) fn call_as(&self, uid: u32, request: Request) -> Reply {
        let socket = self.path("run/control.sock");
        let stream = std::thread::scope(|scope| {
            let connecting = scope.spawn(|| {
                let other = rustix::thread::Uid::from_raw(uid);
                let keep = rustix::thread::Uid::from_raw(u32::MAX);
                // Of this thread alone: it ends at once.
                rustix::thread::set_thread_res_uid(keep, other, keep).unwrap();
                UnixStream::connect(&socket).unwrap()
            });
            connecting.join().unwrap()
        });
        Self::converse(stream, &request, |_| true).unwrap_or_else(|| panic!("no answer: {}", self.log()))
    }

    /// Asks for an export as Ada.
    pub(crate) fn ask_export(&self, ada: &Person, run: &str, folder: &str) -> Statement {
        let request = Request::Export {
            run: run.to_owned(),
            folder: folder.to_owned(),
            recipient: None,
            proof: ada.proof(),
        };
        match self.call_as(ada.uid.unwrap(), request) {
            Reply::Statement(statement) => *statement,
            other => panic!("{other:?}"),
        }
    }

    /// A source of a folder, as the form and the command line make it where nothing else is said.
    pub(crate) fn new_source(&self, name: &str, folder: &str) -> Box<SourceDefinition> {
        Box::new(SourceDefinition {
            name: name.to_owned(),
            kind: "folder".to_owned(),
            path: self.path(folder).display().to_string(),
            branch: String::new(),
            policy: "internal".to_owned(),
            max_bytes: 1 << 24,
            settle_seconds: 0,
            rescan_seconds: 300,
            hidden: false,
        })
    }

    /// Asks for a source as Ada.
    pub(crate) fn ask_source(&self, ada: &Person, definition: &SourceDefinition) -> Reply {
        let definition = Box::new(definition.clone());
        self.call_as(ada.uid.unwrap(), Request::SourceAdd { definition, proof: ada.proof() })
    }

    /// Adds a source, as Ada asks for it and Ben agrees.
    pub(crate) fn add_source(&self, ada: &Person, ben: &Person, definition: &SourceDefinition) -> Statement {
        let Reply::Statement(asked) = self.ask_source(ada, definition) else { panic!("not asked for") };
        match self.approve(BEN, ben, &asked) {
            Reply::Statement(done) => *done,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until a source stands so.
    pub(crate) fn until_source(&self, name: &str, so: impl Fn(&SourceStatus) -> bool) -> SourceStatus {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let Reply::Sources(mut all) = self.call(Request::Sources) else { panic!("no sources") };
            let found = all.remove(name).unwrap_or_else(|| panic!("no source {name}"));
            if so(&found) {
                return found;
            }
            assert!(Instant::now() < deadline, "{found:?} {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Agrees as somebody, at some user's command line.
    pub(crate) fn approve(&self, uid: u32, person: &Person, statement: &Statement) -> Reply {
        self.call_as(uid, Request::Approve { id: statement.id.clone(), proof: person.proof() })
    }
}

/// That a request was refused, and what was said.
#[track_caller]
pub(crate) fn refused(reply: Reply) -> (Fault, String) {
    match reply {
        Reply::Failed { fault, message } => (fault, message),
        other => panic!("not refused: {other:?}"),
    }
}
