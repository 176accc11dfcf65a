//! A browser at a site's admin port, as far as the server can tell: curl with cookies and the forms' tokens.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::Site;
use super::people::Person;

impl Site {
    /// Has the next daemon listen for browsers; gives the address.
    pub(crate) fn open_port(&self) -> SocketAddr {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let settings = fs::read_to_string(self.path("moat.toml")).unwrap();
        fs::write(self.path("moat.toml"), format!("[admin]\nlisten = \"{address}\"\n\n{settings}")).unwrap();
        address
    }
}

pub(crate) struct Browser {
    address: SocketAddr,
    /// The authority that vouches for the server; nothing while it is sealed.
    authority: Option<PathBuf>,
    cookies: RefCell<BTreeMap<String, String>>,
    token: RefCell<String>,
}

/// What came back.
pub(crate) struct Seen {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Seen {
    /// The header that leads elsewhere.
    pub(crate) fn leads_to(&self) -> Option<&str> {
        self.text.lines().find_map(|line| line.strip_prefix("location: "))
    }
}

impl Browser {
    /// A browser that takes whatever certificate it is shown.
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, authority: None, cookies: RefCell::default(), token: RefCell::default() }
    }

    /// A browser that was given the site's authority, waiting until it vouches for the server.
    pub(crate) fn trusting(site: &Site, address: SocketAddr) -> Self {
        let authority = site.path("state/tls/authority.pem");
        let browser = Self { authority: Some(authority.clone()), ..Self::new(address) };
        while !authority.exists() || browser.curl(&[], "/api/v1/health").status == 0 {
            std::thread::sleep(Duration::from_millis(50));
        }
        browser
    }

    fn curl(&self, arguments: &[&str], path: &str) -> Seen {
        let cookies = self.cookies.borrow();
        let cookies: Vec<_> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--include", "--no-buffer", "--noproxy", "*", "--header"]);
        curl.arg(format!("Cookie: {}", cookies.join("; "))).args(arguments);
        match &self.authority {
            Some(authority) => curl.arg("--cacert").arg(authority),
            None => curl.arg("--insecure"),
        };
        let output = curl.arg(format!("https://localhost:{}{path}", self.address.port())).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Seen { status: text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0), text }
    }

    fn ask(&self, arguments: &[&str], path: &str) -> Seen {
        let seen = self.curl(arguments, path);
        for line in seen.text.lines().filter_map(|line| line.strip_prefix("set-cookie: ")) {
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            // What is to be forgotten is sent empty.
            match value {
                "" => self.cookies.borrow_mut().remove(name),
                value => self.cookies.borrow_mut().insert(name.to_owned(), value.to_owned()),
            };
        }
        if let Some(token) = seen.text.split("name=\"token\" value=\"").nth(1) {
            *self.token.borrow_mut() = token.split('"').next().unwrap().to_owned();
        }
        seen
    }

    pub(crate) fn get(&self, path: &str) -> Seen {
        self.ask(&["--max-time", "60"], path)
    }

    /// The beginning of what goes on and on.
    pub(crate) fn glance(&self, path: &str) -> Seen {
        self.ask(&["--max-time", "1"], path)
    }

    /// Sends a form of the page that was last seen.
    pub(crate) fn send(&self, path: &str, fields: &[(&str, &str)]) -> Seen {
        let token = self.token.borrow().clone();
        self.send_with(path, &token, fields)
    }

    /// Sends a form with another token.
    pub(crate) fn send_with(&self, path: &str, token: &str, fields: &[(&str, &str)]) -> Seen {
        let token = [("token", token)];
        let fields: Vec<_> =
            token.iter().chain(fields).map(|(name, value)| format!("{name}={value}")).collect();
        let mut arguments = vec!["--max-time", "120"];
        for field in &fields {
            arguments.extend(["--data-urlencode", field]);
        }
        self.ask(&arguments, path)
    }

    /// Seconds from a request to the first byte of its answer, the status, and bytes of it.
    pub(crate) fn timed(&self, path: &str) -> (f64, u16, u64) {
        let told = "%{time_pretransfer} %{time_starttransfer} %{http_code} %{size_download}";
        let seen = self.curl(&["--output", "/dev/null", "--write-out", told], path);
        let words: Vec<_> = seen.text.split(' ').collect();
        let seconds = |at: usize| words[at].parse::<f64>().unwrap();
        (seconds(1) - seconds(0), words[2].parse().unwrap(), words[3].parse().unwrap())
    }

    /// Calls a verb of the API with a key: the status, and what was answered.
    pub(crate) fn call(&self, key: &str, verb: &str, body: &str) -> (u16, String) {
        let bearer = format!("Authorization: Bearer {key}");
        let arguments = ["--max-time", "60", "--header", &bearer, "--data-binary", body];
        let seen = self.curl(&arguments, &format!("/api/v1/{verb}"));
        let answer = seen.text.split_once("\r\n\r\n").map(|(_, answer)| answer.to_owned());
        (seen.status, answer.unwrap_or(seen.text))
    }

    pub(crate) fn token(&self) -> String {
        self.token.borrow().clone()
    }

    /// Signs in with password and code.
    pub(crate) fn sign_in(&self, person: &Person) {
        // A code of the step before the last counts no more where the next step begins meanwhile.
        for _ in 0..2 {
            self.get("/sign-in");
            let proof = person.proof();
            let fields =
                [("name", person.name.as_str()), ("password", &proof.password.0), ("code", &proof.code.0)];
            let seen = self.send("/sign-in", &fields);
            if seen.status == 303 {
                break;
            }
        }
        let page = self.get("/").text;
        assert!(page.contains("/sign-out"), "{page}");
    }
}
