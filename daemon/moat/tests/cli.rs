//! The real program against a real socket, and `moat check` on real files.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;

use moat_contracts::{Digest, Progress, Recipe};
use moat_protocol::control::{Fault, Reply, Request, Run, RunState, Status, Update};
use moat_protocol::{Hello, read_blocking, write_blocking};
use tempfile::TempDir;

fn moat(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moat"));
    command.args(arguments).env_remove("MOAT_CONFIG").env_remove("MOAT_SOCKET").env("TZ", "UTC");
    command
}

fn run(arguments: &[&str]) -> (i32, String, String) {
    told(moat(arguments).output().unwrap())
}

fn told(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A socket that speaks moatd's side of the protocol: for each conversation in turn, the replies to send. Its thread
/// ends with the requests that came.
struct Daemon {
    folder: TempDir,
    thread: JoinHandle<Vec<Request>>,
}

impl Daemon {
    fn new(conversations: Vec<Vec<Reply>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("control.sock")).unwrap();
        let thread = std::thread::spawn(move || {
            let answered = conversations.into_iter().map(|replies| {
                let (mut stream, _) = listener.accept().unwrap();
                let request = greet(&mut stream);
                for reply in replies {
                    write_blocking(&mut stream, &reply).unwrap();
                }
                request
            });
            answered.collect()
        });
        Self { folder, thread }
    }

    fn socket(&self) -> String {
        self.folder.path().join("control.sock").display().to_string()
    }

    /// Runs moat against this socket.
    fn answers(&self, arguments: &[&str]) -> (i32, String, String) {
        let socket = self.socket();
        run(&[&["--socket", &socket], arguments].concat())
    }

    fn requests(self) -> Vec<Request> {
        self.thread.join().unwrap()
    }
}

fn greet(stream: &mut UnixStream) -> Request {
    let hello: Hello = read_blocking(stream).unwrap().unwrap();
    hello.expect("moat").unwrap();
    write_blocking(stream, &Hello::of("moatd")).unwrap();
    read_blocking(stream).unwrap().unwrap()
}

fn failed(fault: Fault) -> Reply {
    Reply::Failed { fault, message: "this cannot be".to_owned() }
}

fn a_run(state: RunState) -> Reply {
    let recipe = Recipe { name: "demo".to_owned(), ..Recipe::default() };
    Reply::Run(Box::new(Run {
        name: "demo-1".to_owned(),
        state,
        message: None,
        recipe_hash: recipe.hash(),
        recipe,
        dataset: None,
        base: None,
        created: 0,
        steps: 0,
        planned: None,
        course: Default::default(),
        outcome: None,
        edge: None,
        weights: None,
        sweep: None,
    }))
}

fn a_step() -> Reply {
    let progress = Progress::Step {
        step: 1,
        steps: 10,
        loss: 4.0,
        gradient_norm: 1.0,
        learning_rate: 1e-3,
        tokens: 2048,
        tokens_per_second: 1000.0,
        memory: 1 << 20,
        seconds_left: 9.0,
        cores: 1.0,
        pairs: None,
    };
    Reply::Update(Update::Run { run: "demo-1".to_owned(), progress })
}

#[test]
fn a_missing_daemon_is_told_with_its_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock").display().to_string();
    let expected = format!(
        "moat: moatd is not reachable at {socket}: start it with `systemctl start moatd` or give --socket\n"
    );
    assert_eq!(run(&["status", "--socket", &socket]), (3, String::new(), expected.clone()));
    let output = moat(&["status"]).env("MOAT_SOCKET", &socket).output().unwrap();
    assert_eq!(told(output), (3, String::new(), expected.clone()));
    let config = folder.path().join("moat.toml").display().to_string();
    std::fs::write(&config, format!("[daemon]\nruntime = \"{}\"\n", folder.path().display())).unwrap();
    assert_eq!(run(&["status", "--config", &config]), (3, String::new(), expected));

    let (code, stdout, stderr) = run(&["status", "--json", "--socket", &socket]);
    let value: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, stderr.as_str(), &value["reply"]), (3, "", &"failed".into()));
    assert_eq!(value["value"]["fault"], "unreachable");
}

#[test]
fn each_fault_has_its_exit_code() {
    for (fault, code) in [(Fault::Request, 1), (Fault::Denied, 4), (Fault::Internal, 5), (Fault::Failed, 6)] {
        let daemon = Daemon::new(vec![vec![failed(fault)]]);
        let told = daemon.answers(&["dataset", "list"]);
        assert_eq!(told, (code, String::new(), "moat: this cannot be\n".to_owned()));
        assert_eq!(daemon.requests(), [Request::Datasets]);
    }
    let daemon = Daemon::new(vec![Vec::new()]);
    assert_eq!(daemon.answers(&["scan"]).0, 3, "a conversation that ends without a reply");
}

#[test]
fn another_release_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        write_blocking(&mut stream, &Hello { version: 99, program: "moatd".to_owned() }).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
    });
    let (code, _, stderr) = run(&["status", "--socket", &path.display().to_string()]);
    assert!(code == 5 && stderr.contains("install both programs from one release"), "{code} {stderr}");
    thread.join().unwrap();
}

#[test]
fn json_is_one_line_of_the_reply_and_updates_stand_beside_it() {
    let status = Reply::Status(Box::new(Status { version: "1".to_owned(), ..Status::default() }));
    let update = Update::Curating { documents: 1, bytes: 2, of: None };
    let daemon = Daemon::new(vec![vec![Reply::Update(update.clone()), status.clone()]]);
    let (code, stdout, stderr) = daemon.answers(&["scan", "--json"]);
    assert_eq!(code, 0);
    assert_eq!(stdout.lines().count(), 1);
    assert_eq!(serde_json::from_str::<Reply>(&stdout).unwrap(), status);
    assert_eq!(serde_json::from_str::<Update>(stderr.trim()).unwrap(), update);
    assert_eq!(daemon.requests(), [Request::Scan]);
}

#[test]
fn a_started_run_is_followed_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = folder.path().join("demo.toml");
    std::fs::write(&recipe, "name = \"demo\"\n").unwrap();
    let recipe = recipe.display().to_string();
    let watch = vec![
        Reply::Update(Update::RunState { run: "demo-1".to_owned(), state: RunState::Training }),
        a_step(),
        a_run(RunState::Done),
    ];
    let daemon = Daemon::new(vec![vec![a_run(RunState::Queued)], watch]);
    let (code, stdout, stderr) = daemon.answers(&["run", "start", &recipe]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.starts_with("run      demo-1, done\n"), "{stdout}");
    assert_eq!(stderr, "demo-1: training\ndemo-1 training: step 1 of 10, loss 4.000, 1000 tokens/s\n");
    let expected = Recipe { name: "demo".to_owned(), ..Recipe::default() };
    let requests = daemon.requests();
    assert_eq!(requests[0], Request::RunStart { recipe: Box::new(expected) });
    assert_eq!(requests[1], Request::RunWatch { name: "demo-1".to_owned() });

    let daemon = Daemon::new(vec![vec![a_run(RunState::Queued)]]);
    let (code, stdout, _) = daemon.answers(&["run", "start", &recipe, "--detach"]);
    assert!(code == 0 && stdout.starts_with("run      demo-1, queued\n"), "{stdout}");

    let daemon = Daemon::new(vec![vec![a_run(RunState::Queued)], vec![failed(Fault::Failed)]]);
    assert_eq!(daemon.answers(&["run", "resume", "demo"]).0, 6);
    let daemon = Daemon::new(vec![vec![a_run(RunState::Training)]]);
    assert_eq!(daemon.answers(&["run", "watch", "demo-1"]).0, 3, "moatd ended before the run");

    std::fs::write(&recipe, "epochs = 1\nseed = \"x\"\n").unwrap();
    let (code, _, stderr) = run(&["run", "start", &recipe]);
    assert_eq!((code, stderr.lines().count()), (2, 2), "{stderr}");
}

#[test]
fn a_path_is_asked_for_both_ways() {
    let here = std::env::current_dir().unwrap().display().to_string();
    let asked = |path: &str| Request::Why { path: path.to_owned() };
    let daemon = Daemon::new(vec![vec![failed(Fault::Request)], vec![Reply::Why(Vec::new())]]);
    assert_eq!(daemon.answers(&["why", "guide/gone.md"]).0, 0);
    assert_eq!(daemon.requests(), [asked("guide/gone.md"), asked(&format!("{here}/guide/gone.md"))]);
    let daemon = Daemon::new(vec![vec![failed(Fault::Request)], vec![failed(Fault::Request)]]);
    assert_eq!(daemon.answers(&["why", "Cargo.toml"]).0, 1);
    assert_eq!(daemon.requests(), [asked(&format!("{here}/Cargo.toml")), asked("Cargo.toml")]);
    let daemon = Daemon::new(vec![vec![failed(Fault::Request)]]);
    assert_eq!(daemon.answers(&["why", "./Cargo.toml"]).0, 1);
    assert_eq!(daemon.requests(), [asked(&format!("{here}/Cargo.toml"))]);
}

#[test]
fn an_interrupted_watcher_leaves_the_run_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut child = moat(&["run", "watch", "demo", "--socket", &path.display().to_string()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    assert_eq!(greet(&mut stream), Request::RunWatch { name: "demo".to_owned() });
    write_blocking(&mut stream, &a_step()).unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("step 1 of 10"));
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let last = lines.next().unwrap().unwrap();
    assert!(last.contains("run demo-1 goes on") && last.contains("`moat run stop demo-1`"), "{last}");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let daemon = Daemon::new(vec![vec![Reply::Status(Box::default())]]);
    let mut child = moat(&["status", "--socket", &daemon.socket()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn a_prompt_comes_from_standard_input() {
    let daemon = Daemon::new(vec![vec![Reply::Answer(Vec::new())]]);
    let mut child = moat(&["--socket", &daemon.socket(), "ask", "--seed", "9", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all("zwei\nZeilen".as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    let Request::Ask { run, prompt, chat, sampling } = daemon.requests().remove(0) else { panic!() };
    assert_eq!((run, prompt.as_str(), chat, sampling.seed), (None, "zwei\nZeilen", false, 9));
}

#[test]
fn a_faulty_configuration_is_told_whole() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let bad = write("bad.toml", "[daemon]\nstat = \"/x\"\n[training]\nthreads = true\nnice = 99\n");
    let (code, stdout, stderr) = run(&["check", &bad]);
    let expected = [
        format!("{bad}:2:1: daemon.stat: there is no such key: did you mean `state`?"),
        format!("{bad}:4:11: training.threads: expected a whole number, 0 or more, found true or false"),
        format!("{bad}:5:8: training.nice: must be from 0 to 19"),
        format!("3 faults in {bad}"),
    ];
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert_eq!(stderr.lines().collect::<Vec<_>>(), expected);

    let (code, stdout, _) = run(&["check", "--json", "--config", &bad]);
    let value: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, value["reply"].as_str()), (2, Some("checked")));
    assert_eq!(value["value"]["faults"][1]["line"], 4);
    assert_eq!(value["value"]["faults"][1]["key"], "training.threads");

    let here = folder.path().display();
    let text = format!(
        "[daemon]\nstate = \"{here}/new/state\"\nengine = \"{}\"\n[[source]]\nname = \"a\"\npath = \"{here}/gone\"\n",
        env!("CARGO_BIN_EXE_moat")
    );
    let good = write("good.toml", &text);
    let (code, _, stderr) = run(&["check", &good]);
    assert_eq!(code, 2);
    assert!(
        stderr.starts_with(&format!("{good}:6:8: source[0].path: {here}/gone cannot be opened:")),
        "{stderr}"
    );
    let sound = format!("{good}: sound, 1 source\n");
    assert_eq!(run(&["check", "--text-only", &good]), (0, sound.clone(), String::new()));
    std::fs::create_dir(folder.path().join("gone")).unwrap();
    assert_eq!(run(&["check", &good]), (0, sound, String::new()));
    assert!(!folder.path().join("new").exists(), "a check makes nothing");
}

#[test]
fn recipes_and_missing_files_are_checked_too() {
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/recipes");
    let demo = recipes.join("demo.toml").display().to_string();
    let (code, stdout, _) = run(&["check", "--recipe", &demo]);
    assert_eq!((code, stdout), (0, format!("{demo}: sound, recipe demo on base moat-starter\n")));
    let (code, _, stderr) = run(&["check", "/nowhere/moat.toml"]);
    assert!(code == 2 && stderr.starts_with("moat: /nowhere/moat.toml cannot be read"), "{stderr}");
    assert_eq!(run(&["check", "--recipe", "/nowhere/demo.toml", "--json"]).0, 2);
}

#[test]
fn wrong_usage_is_told_in_json_too() {
    assert_eq!(run(&["fly"]).0, 2);
    assert_eq!(run(&[]).0, 2);
    let (code, stdout, stderr) = run(&["--json", "fly"]);
    let value: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, stderr.as_str(), value["value"]["fault"].as_str()), (2, "", Some("usage")));
    let (code, stdout, _) = run(&["--help"]);
    assert!(code == 0 && stdout.contains("Exit codes:") && stdout.contains("130  interrupted"));
    assert_eq!(run(&["--version"]).0, 0);
}

#[test]
fn an_export_is_verified() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display().to_string();
    std::fs::write(folder.path().join("card.md"), "card").unwrap();
    std::fs::write(folder.path().join("SHA256SUMS"), format!("{}  card.md\n", Digest::of(b"card"))).unwrap();
    assert_eq!(run(&["verify", &path]), (0, format!("{path}: sound, 1 file as exported\n"), String::new()));
    std::fs::write(folder.path().join("card.md"), "cord").unwrap();
    let (code, stdout, _) = run(&["verify", &path, "--json"]);
    let value: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, value["value"]["deviations"][0]["file"].as_str()), (1, Some("card.md")));
    assert_eq!(run(&["verify", "/nowhere"]).0, 1);
}
