//! The admin UI of a real `moatd`, as browsers reach it: who sees and does what, and how the box is opened.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod site;

use moat_admin::{Needs, routes};
use moat_protocol::control::{LedgerPage, NewAccount, NewSlot, Reply, Request, Secret, Status};
use moat_rights::{Role, Roles, may};

use site::Site;
use site::browser::Browser;
use site::people::{ADA, BEN, Person};

fn ledger(site: &Site, act: &str) -> LedgerPage {
    let request = Request::Ledger { act: Some(act.to_owned()), before: None, most: 1000 };
    match site.call(request) {
        Reply::Ledger(page) => page,
        other => panic!("{other:?}"),
    }
}

fn status(site: &Site) -> Status {
    match site.call(Request::Status) {
        Reply::Status(status) => *status,
        other => panic!("{other:?}"),
    }
}

/// A path of a route with something in place of its braces that is nowhere.
fn filled(path: &str) -> String {
    let parts = path.split('/').map(|part| if part.starts_with('{') { "zzzz" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

/// Whether a role may follow every link of a page and send every form of it: what it may not is not offered.
fn offers_what_is_allowed(page: &str, roles: Roles, who: &str, at: &str) {
    let fits = |pattern: &str, path: &str| {
        let (pattern, path): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), path.split('/').collect());
        let same = |(pattern, part): (&&str, &&str)| pattern.starts_with('{') || pattern == part;
        pattern.len() == path.len() && pattern.iter().zip(&path).all(same)
    };
    for (mark, method) in [("action=\"/", "POST"), ("<a href=\"/", "GET"), ("data-live=\"/", "GET")] {
        for rest in page.split(mark).skip(1) {
            let path = format!("/{}", rest.split('"').next().unwrap());
            let route = routes().find(|route| route.method == method && fits(route.path, &path));
            let route = route.unwrap_or_else(|| panic!("{who} {at}: {method} {path} leads nowhere"));
            let allowed = match route.needs {
                Needs::Anyone | Needs::Account => true,
                Needs::Act(act) => may(roles, act),
            };
            assert!(allowed, "{who} is offered {method} {path} at {at}");
        }
    }
}

#[test]
fn every_route_is_for_the_roles_that_the_table_says_and_for_nobody_else() {
    let mut site = Site::new();
    let address = site.open_port();
    site.start();
    let own = rustix::process::geteuid().as_raw();
    let accounts: Vec<_> = Role::ALL.iter().map(|role| (role.word(), role.word(), None)).collect();
    let keeper = ("keeper", "admin,auditor", Some(own));
    let mut people = site.set_up(&[accounts, vec![keeper]].concat());
    // And one of whom nobody has said yet what it is for.
    let new = NewAccount {
        name: "none".to_owned(),
        uid: None,
        roles: Vec::new(),
        password: Secret("would not be guessed".to_owned()),
    };
    let Reply::Made(made) = site.call(Request::AccountCreate { account: new }) else { panic!() };
    people.insert(Role::ALL.len(), Person::new("none", None, "would not be guessed", &made[0].uri.0));
    let nobody = Browser::trusting(&site, address);
    nobody.get("/sign-in");
    let browsers: Vec<_> = people
        .iter()
        .map(|person| {
            let browser = Browser::trusting(&site, address);
            browser.sign_in(person);
            browser
        })
        .collect();
    // The session that was ended is as good as none.
    let ended = browsers.last().unwrap();
    assert_eq!(ended.send("/sign-out", &[]).status, 303);

    for route in routes() {
        let path = filled(route.path);
        let ask = |browser: &Browser, token: &str| match (route.method, route.live) {
            ("POST", _) => browser.send_with(&path, token, &[]),
            (_, true) => browser.glance(&path),
            _ => browser.get(&path),
        };
        for (number, browser) in browsers.iter().enumerate().take(Role::ALL.len() + 1) {
            let roles = Role::ALL.get(number).map_or(Roles::NONE, |role| Roles::of(&[*role]));
            let who = Role::ALL.get(number).map_or("none", |role| role.word());
            let allowed = match route.needs {
                Needs::Anyone | Needs::Account => true,
                Needs::Act(act) => may(roles, act),
            };
            if route.method == "POST" {
                // A form that is not of this very session does nothing, whoever sends it.
                let others = browsers[(number + 1) % Role::ALL.len()].token();
                for token in ["", "0", others.as_str(), nobody.token().as_str()] {
                    assert_eq!(ask(browser, token).status, 403, "{who} {path}");
                }
            }
            // Whoever signs out here signs in no more: the code was used.
            if route.path == "/sign-out" {
                continue;
            }
            let seen = ask(browser, &browser.token());
            let expected: &[u16] = match (allowed, route.method) {
                (false, _) => &[403],
                // What is asked for is not there, or not said: it was let in, and nothing was done.
                (true, "POST") if route.path == "/sources/scan" => &[303],
                (true, "POST") => &[422],
                (true, _) if route.path == "/ledger/{kind}" => &[200],
                (true, _) if route.path.contains('{') => &[404],
                (true, _) if route.path == "/unseal" || route.path == "/sign-in" => &[303],
                (true, _) => &[200],
            };
            assert!(expected.contains(&seen.status), "{who} {} {path}: {}", route.method, seen.text);
            if route.method == "GET" && !route.live && seen.status != 303 {
                offers_what_is_allowed(&seen.text, roles, who, &path);
            }
        }
        for stranger in [&nobody, ended] {
            let seen = ask(stranger, &stranger.token());
            let expected = match (route.needs, route.method, route.live) {
                (Needs::Anyone, "GET", _) => 200,
                (Needs::Anyone, ..) => 422,
                (_, "POST", _) | (_, _, true) => 401,
                _ => 303,
            };
            assert_eq!(seen.status, expected, "nobody {} {path}: {}", route.method, seen.text);
        }
    }
    // The first refusals of a minute are each written down.
    let refusals = ledger(&site, "source.scan").entries;
    assert!(
        refusals.iter().any(|entry| entry.phase == "refused" && entry.who == "viewer (browser)"),
        "{refusals:?}"
    );
    site.kill();
}

#[test]
fn two_holders_open_the_box_from_two_browsers_and_sealing_it_signs_everybody_out() {
    let mut site = Site::without_credential();
    let address = site.open_port();
    site.start();
    let (one, other) = (Browser::new(address), Browser::new(address));
    let page = one.get("/").text;
    assert!(page.contains("There is no vault yet") && !page.contains("<form"), "{page}");
    let init = Request::VaultInit { with: NewSlot::Shares { needed: 2, of: 3 } };
    let Reply::Shares(shares) = site.call(init) else { panic!() };
    assert!(one.get("/").text.contains("There are no accounts yet"));
    let own = rustix::process::geteuid().as_raw();
    let keeper = ("keeper", "auditor", Some(own));
    let people =
        site.set_up(&[("ada", "steward,engineer,admin", Some(ADA)), ("ben", "approver", Some(BEN)), keeper]);
    let (ada, ben) = (Browser::trusting(&site, address), Browser::trusting(&site, address));
    ada.sign_in(&people[0]);
    ben.sign_in(&people[1]);
    assert!(ada.get("/").text.contains("ada"));

    // Nothing is sealed without the word, and then at once, for everybody.
    assert_eq!(ben.get("/boundary").status, 200);
    assert_eq!(ben.send("/boundary/seal", &[("typed", "yes")]).status, 422);
    assert!(!status(&site).seal.sealed);
    let seen = ben.send("/boundary/seal", &[("typed", "seal")]);
    assert_eq!((seen.status, seen.leads_to()), (303, Some("/unseal")));
    assert!(status(&site).seal.sealed);
    for browser in [&ada, &ben] {
        assert_eq!(browser.get("/boundary").leads_to(), Some("/unseal"));
        assert_eq!(browser.glance("/live/overview").status, 503);
    }

    // One share at a time, each from its own browser; a wrong one counts for nothing.
    assert!(one.get("/unseal").text.contains("2 of 3 shares"));
    other.get("/unseal");
    let share = |number: usize| shares[number].0.clone();
    let mut damaged = share(0);
    let last = if damaged.ends_with('7') { '8' } else { '7' };
    damaged.pop();
    damaged.push(last);
    assert_eq!(one.send("/unseal", &[("share", &damaged)]).status, 422);
    let seen = one.send("/unseal", &[("share", &share(2))]);
    assert!(seen.status == 200 && seen.text.contains("1 of 2 shares are given"), "{}", seen.text);
    let told = other.glance("/live/unseal").text;
    assert!(told.contains("event: part") && told.contains("1 of 2</strong> shares given"), "{told}");
    assert_eq!(other.send("/unseal", &[("share", &share(2))]).status, 422);
    assert!(status(&site).seal.sealed);
    let seen = other.send("/unseal", &[("share", &share(0))]);
    assert!(seen.status == 200 && seen.text.contains("The vault is open"), "{}", seen.text);
    assert!(!status(&site).seal.sealed);
    // The sessions from before are gone, and the code that was used is used.
    assert_eq!(ada.get("/boundary").leads_to(), Some("/sign-in"));
    ada.sign_in(&people[0]);

    let opened = ledger(&site, "vault.unseal").entries;
    let done: Vec<_> = opened.iter().filter(|entry| entry.phase == "done").collect();
    assert!(done[0].who == "a holder at the admin port (holder)" && done[0].detail["address"] == "127.0.0.1");
    assert_eq!(opened.iter().filter(|entry| entry.phase == "failed").count(), 2, "{opened:?}");
    let sealed = ledger(&site, "vault.seal").entries;
    assert!(sealed[0].phase == "done" && sealed[0].who == "ben (approver)", "{sealed:?}");
    let begun = ledger(&site, "session.begin").entries;
    assert!(begun.iter().any(|entry| entry.who == "ada (browser)" && entry.phase == "done"), "{begun:?}");
    site.kill();
}

#[test]
fn strangers_learn_nothing_of_who_has_an_account_and_a_code_counts_once() {
    let mut site = Site::new();
    let address = site.open_port();
    site.start();
    let own = rustix::process::geteuid().as_raw();
    let people = site.set_up(&[
        ("ada", "steward,engineer,admin", None),
        ("ben", "approver", None),
        ("k", "auditor,admin", Some(own)),
    ]);
    let browser = Browser::trusting(&site, address);
    browser.get("/sign-in");
    // Moat's own certificate is another one while it is sealed: a browser must not be told to insist on this one.
    assert!(!browser.get("/sign-in").text.contains("strict-transport-security"));
    let wrong = browser.send("/sign-in", &[("name", "ada"), ("password", "no"), ("code", "000000")]);
    let unknown = browser.send("/sign-in", &[("name", "zoe"), ("password", "no"), ("code", "000000")]);
    let body = |text: &str| {
        text.split_once("\r\n\r\n").unwrap().1.split("<section class=\"box").next().unwrap().to_owned()
    };
    assert_eq!((wrong.status, unknown.status), (422, 422));
    assert_eq!(body(&wrong.text), body(&unknown.text));
    // Made only now: a code counts for a minute or so.
    let proof = people[0].proof();
    let ada = [("name", "ada"), ("password", proof.password.0.as_str()), ("code", proof.code.0.as_str())];
    assert_eq!(browser.send("/sign-in", &ada).status, 303);
    let again = Browser::trusting(&site, address);
    again.get("/sign-in");
    assert_eq!(again.send("/sign-in", &ada).status, 422, "a code counts once");
    // An account that is disabled is out at its next request.
    assert_eq!(browser.get("/boundary").status, 200);
    let disable = Request::AccountDisable { name: "ada".to_owned() };
    assert!(matches!(site.call(disable), Reply::Accounts(_)));
    assert_eq!(browser.get("/boundary").leads_to(), Some("/sign-in"));
    // Names that nobody has are not written down.
    let begun = ledger(&site, "session.begin").entries;
    assert!(begun.iter().all(|entry| !format!("{entry:?}").contains("zoe")), "{begun:?}");
    assert!(begun.iter().any(|entry| entry.who == "nobody (browser)" && entry.phase == "failed"));
    site.kill();
}

#[test]
fn an_account_that_was_made_in_a_browser_signs_in_with_the_codes_that_were_shown_once() {
    let mut site = Site::new();
    let address = site.open_port();
    site.start();
    let own = rustix::process::geteuid().as_raw();
    let people = site.set_up(&[
        ("ada", "admin,engineer", None),
        ("ben", "approver", None),
        ("k", "auditor,steward", Some(own)),
    ]);
    let ada = Browser::trusting(&site, address);
    ada.sign_in(&people[0]);
    let make = |more: &[(&str, &str)]| {
        ada.get("/people");
        ada.send("/people/new", &[&[("name", "fay"), ("password", "quite her own + word")], more].concat())
    };
    assert_eq!(make(&[("again", "another")]).status, 422);
    assert_eq!(make(&[("again", "quite her own + word"), ("uid", "x")]).status, 422);
    assert!(!ada.get("/people").text.contains("/people/fay"));
    let uri = |text: &str| {
        let begin = text.split("otpauth://").nth(1).expect(text).split('<').next().unwrap();
        format!("otpauth://{begin}").replace("&amp;", "&")
    };
    let made = make(&[("again", "quite her own + word")]);
    assert!(made.status == 200 && made.text.contains("<svg class=\"qr\""), "{}", made.text);
    assert!(made.text.contains("no-store"));
    let fay = Person::new("fay", None, "quite her own + word", &uri(&made.text));
    let browser = Browser::trusting(&site, address);
    browser.sign_in(&fay);
    assert!(browser.get("/").text.contains("This account has no role yet"));
    // With new credentials the old ones, and whoever signed in by them, are out.
    ada.get("/people/fay");
    let fields = [("password", "a second one of hers"), ("again", "a second one of hers")];
    assert_eq!(ada.send("/people/fay/reset", &fields).status, 422);
    let renewed = ada.send("/people/fay/reset", &[&fields[..], &[("typed", "fay")]].concat());
    assert_ne!(uri(&renewed.text), uri(&made.text));
    assert!(!browser.get("/").text.contains("This account has no role yet"));
    browser.sign_in(&Person::new("fay", None, "a second one of hers", &uri(&renewed.text)));
    // What was shown is nowhere in the ledger.
    let secret = uri(&made.text).split("secret=").nth(1).unwrap()[..32].to_owned();
    let told = format!("{:?}", [ledger(&site, "account."), ledger(&site, "session.")]);
    assert!(told.contains("account.create") && told.contains("account.reset"), "{told}");
    for hidden in [secret.as_str(), "her own", "second one"] {
        assert!(!told.contains(hidden), "{told}");
    }
    site.kill();
}

#[test]
fn the_boundary_tells_what_each_process_gave_up_and_an_entry_carries_its_proof() {
    let mut site = Site::new();
    let address = site.open_port();
    for index in 0..40 {
        site.write(&format!("{index}.txt"), &site::prose(&mut site::Random(index), 10));
    }
    site.start();
    site.import_base();
    site.scan();
    site.run(&site::tiny_recipe(3));
    let own = rustix::process::geteuid().as_raw();
    let people = site.set_up(&[
        ("vic", "viewer", None),
        ("eve", "auditor", None),
        ("ben", "approver", None),
        ("k", "admin,engineer", Some(own)),
        // Root's command line counts for nobody among those who ask and agree.
        ("cyd", "admin,engineer", None),
    ]);
    let key =
        Request::ApiKeyCreate { name: "reports".to_owned(), scope: vec!["status.read".to_owned()], days: 2 };
    assert!(matches!(site.call(key), Reply::ApiKey(_)));
    let told = status(&site);
    assert_eq!(told.processes.keys().collect::<Vec<_>>(), ["moat-engine", "moatd"]);
    assert!(told.canary.ways.keys().all(|way| told.canary.last.contains_key(way)), "{:?}", told.canary);
    let [vic, eve, ben] = [0, 1, 2].map(|number| {
        let browser = Browser::trusting(&site, address);
        browser.sign_in(&people[number]);
        browser
    });
    for (browser, keys) in [(&vic, false), (&eve, false), (&ben, true)] {
        let page = browser.get("/boundary").text;
        for said in [
            "What moatd gave up",
            "What moat-engine gave up",
            "no core dumps",
            "Who may do what",
            "Nothing has left",
        ] {
            assert!(page.contains(said), "{said}: {page}");
        }
        assert_eq!(page.contains("reports"), keys, "{page}");
    }
    // Whoever only looks is given nothing to press but the way out.
    assert_eq!(vic.get("/boundary").text.matches("<form").count(), 1);
    assert_eq!(vic.get("/ledger/entry/1").status, 403);

    let page = eve.get("/ledger/entry/1").text;
    let between =
        |begin: &str, end: &str| page.split(begin).nth(1).unwrap().split(end).next().unwrap().to_owned();
    let receipt = between("id=\"receipt\">", "</code>");
    let key = moat_ledger::PublicKey::from_text(&between("id=\"key\" value=\"", "\"")).unwrap();
    let (entry, _) = moat_ledger::verify_receipt(&receipt, &key).unwrap();
    assert_eq!(entry.index, 1);
    assert!(page.contains(&entry.act) && page.contains("moat ledger check-receipt"), "{page}");
    for nowhere in ["/ledger/entry/999999", "/ledger/entry/-1", "/ledger/entry/x"] {
        assert_eq!(eve.get(nowhere).status, 404, "{nowhere}");
    }
    site.end();
}
