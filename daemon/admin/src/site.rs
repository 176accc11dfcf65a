use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt, stream};
use hyper::body::{Buf, Incoming};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER, SET_COOKIE,
    WWW_AUTHENTICATE,
};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::service::TowerToHyperService;
use moat_protocol::control::{Fault, Reply, Request as Asked, Update};
use moat_rights::Act;
use tokio::sync::{Semaphore, mpsc};
use warp::http::StatusCode;
use warp::{Filter, Rejection, Reply as _};
use zeroize::Zeroizing;

use crate::draw::{self, Frame};
use crate::form::{self, BACK, Form, SESSION, STRANGER};
use crate::limiter::{Bucket, Limiter};
use crate::listener::Peer;
use crate::pages::error;
use crate::routes::{self, Found, Needs, Route, Verb};
use crate::session::{Session, Sessions, secret};
use crate::{Answer, Call, Daemon, Health, Refusal, Standing, Stay};

/// Bytes of a request's body at most.
const LARGEST: u64 = 1 << 20;

/// How long a request's body may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pages at once that keep themselves up to date: those of people who are signed in, and of strangers.
const LIVE: usize = 128;
const LIVE_STRANGERS: usize = 32;

/// How long a page waits for what goes on by itself otherwise.
const MOMENT: Duration = Duration::from_millis(1500);

/// Headers of every answer. The pages need nothing from anywhere else, and no script or style of their own.
const HEADERS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    // With none at all browsers would say that forms come from nowhere.
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
];

/// Has a browser never again take a certificate that nobody vouches for.
const STRICT: (&str, &str) = ("strict-transport-security", "max-age=31536000");

/// What all requests share.
pub(crate) struct Site {
    pub(crate) daemon: Arc<dyn Daemon>,
    pub(crate) sessions: Sessions,
    /// Wrong passphrases and shares.
    pub(crate) unseals: Limiter,
    /// Wrong passwords and codes; each account has a count of its own beside this.
    pub(crate) sign_ins: Limiter,
    pub(crate) live: Arc<Semaphore>,
    pub(crate) live_strangers: Arc<Semaphore>,
}

/// Who is signed in, as of this request.
pub(crate) struct Here {
    /// The cookie's value.
    pub(crate) id: String,
    pub(crate) session: Session,
    pub(crate) standing: Standing,
}

/// One request for a route.
pub(crate) struct Visit {
    pub(crate) site: Arc<Site>,
    pub(crate) health: Health,
    pub(crate) from: IpAddr,
    /// What stands in place of the braces of the route's path.
    pub(crate) segments: Vec<String>,
    pub(crate) form: Form,
    pub(crate) here: Option<Here>,
    /// The token of a stranger's form.
    pub(crate) stranger: String,
    /// The page that somebody wanted to see before signing in.
    pub(crate) back: Option<String>,
}

impl Visit {
    /// The token that this visit's forms carry.
    pub(crate) fn token(&self) -> &str {
        self.here.as_ref().map_or(&self.stranger, |here| &here.session.token)
    }

    /// Whether whoever is signed in may do something.
    pub(crate) fn may(&self, act: Act) -> bool {
        self.here.as_ref().is_some_and(|here| here.standing.may(act))
    }

    /// Asks the daemon in the name of whoever is signed in.
    pub(crate) async fn ask(&self, request: Asked) -> Result<Reply, Refusal> {
        self.ask_and_watch(request, None).await
    }

    /// As [`Self::ask`], and hears meanwhile what goes on.
    pub(crate) async fn ask_and_watch(
        &self,
        request: Asked,
        updates: Option<mpsc::Sender<Update>>,
    ) -> Result<Reply, Refusal> {
        let Some(here) = &self.here else {
            return Err(Refusal { fault: Fault::Denied, message: "nobody is signed in".to_owned() });
        };
        self.site.daemon.ask(self.from, &here.session.person, request, updates).await
    }

    /// As [`Self::ask`] for what may take long: it goes on by itself where it is not done in a moment.
    pub(crate) async fn begin(&self, request: Asked) -> Result<Option<Reply>, Refusal> {
        let Some(here) = &self.here else {
            return Err(Refusal { fault: Fault::Denied, message: "nobody is signed in".to_owned() });
        };
        let mut answer = tokio::spawn(self.site.daemon.ask(self.from, &here.session.person, request, None));
        match tokio::time::timeout(MOMENT, &mut answer).await {
            Err(_) => Ok(None),
            Ok(Ok(reply)) => reply.map(Some),
            Ok(Err(error)) => Err(Refusal { fault: Fault::Internal, message: error.to_string() }),
        }
    }

    /// Whether whoever is signed in still is, and may still do what the route needs; looks again how the box stands.
    pub(crate) fn look_again(&mut self, needs: Needs) -> bool {
        self.health = self.site.daemon.health();
        if self.site.daemon.is_ending() {
            return false;
        }
        let Some(id) = self.here.take().map(|here| here.id) else { return needs == Needs::Anyone };
        self.here = here(&self.site, &id, false);
        self.here.as_ref().is_some_and(|here| allows(here, needs))
    }

    /// Answers a deed: to the page that shows what came of it, with a word on it.
    pub(crate) fn done(self, to: String, note: String) -> Outcome {
        if let Some(here) = &self.here {
            self.site.sessions.note(&here.id, note);
        }
        Outcome::Go { to, cookies: Vec::new() }
    }
}

/// The reply that was asked for; another one is a fault of Moat's.
macro_rules! reply_of {
    ($reply:expr, $kind:pat => $value:expr) => {
        match $reply {
            $kind => $value,
            _ => {
                return Err($crate::Refusal {
                    fault: moat_protocol::control::Fault::Internal,
                    message: "the daemon answered something else than was asked".to_owned(),
                });
            }
        }
    };
}
pub(crate) use reply_of;

/// What a page gives.
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) title: String,
    /// The page of the navigation that it belongs to.
    pub(crate) place: &'static str,
    pub(crate) body: maud::Markup,
    /// Seconds after which to try again.
    pub(crate) retry: Option<u64>,
}

impl Page {
    pub(crate) fn of(place: &'static str, title: impl Into<String>, body: maud::Markup) -> Outcome {
        Outcome::Page(Self { status: 200, title: title.into(), place, body, retry: None })
    }
}

/// What a route answers.
pub(crate) enum Outcome {
    /// A page.
    Page(Page),
    /// Another page to go to, with cookies to set.
    Go { to: String, cookies: Vec<String> },
    /// A part of a page, again and again.
    Live(mpsc::Receiver<String>),
    /// A file to keep: its name, its type, what it holds.
    File(String, &'static str, String),
}

/// The pages; the files that they are made with; `/api/v1/health` for machines (200 where all is well, 503 otherwise);
/// and `POST /api/v1/VERB` for every other verb, which the daemon answers. `lasting` says that the certificate is the same
/// while the box is sealed: where it is not, a browser that was told to be strict could not open the box again.
pub fn site(
    daemon: Arc<dyn Daemon>,
    stay: Stay,
    lasting: bool,
) -> impl Service<
    Request<Incoming>,
    Response = Response<
        impl hyper::body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    >,
    Error = Infallible,
    Future: Send,
> + Clone
+ Send
+ Sync
+ 'static {
    let pause = |seconds| Duration::from_secs(seconds);
    let of_one = Bucket { tries: 5, pause: pause(12) };
    let site = Arc::new(Site {
        daemon: daemon.clone(),
        sessions: Sessions::new(stay),
        unseals: Limiter::new(of_one, Some(Bucket { tries: 20, pause: pause(3) })),
        sign_ins: Limiter::new(of_one, None),
        live: Arc::new(Semaphore::new(LIVE)),
        live_strangers: Arc::new(Semaphore::new(LIVE_STRANGERS)),
    });
    let told = daemon.clone();
    let machine = warp::path!("api" / "v1" / "health").and(warp::get()).map(move || {
        let health = told.health();
        let status = if health.is_well() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        fresh(warp::reply::with_status(warp::reply::json(&health), status).into_response())
    });
    let files = draw::FILES
        .iter()
        .map(|file| (file.path.as_str(), file))
        .collect::<std::collections::BTreeMap<_, _>>();
    let file = warp::get().and(warp::path::full()).and(warp::header::headers_cloned()).and_then(
        move |path: warp::path::FullPath, headers: HeaderMap| {
            let found = files.get(path.as_str()).copied();
            async move { found.map(|file| file.answer(&headers)).ok_or_else(warp::reject::not_found) }
        },
    );
    let describer = daemon.clone();
    let described = warp::path!("api" / "v1" / "openapi.json").and(warp::get()).then(move || {
        let describer = describer.clone();
        answered(async move { describer.description() })
    });
    let verbs = warp::path!("api" / "v1" / String)
        .and(warp::post())
        .and(warp::header::optional("authorization"))
        .and(body().map(Ok).or_else(async |rejection| Ok::<_, Rejection>((Err(status_of(&rejection)),))))
        .then(move |verb, authorization: Option<String>, body: Result<Body, u16>| {
            let key = authorization.and_then(|text| text.strip_prefix("Bearer ").map(ToOwned::to_owned));
            let daemon = daemon.clone();
            answered(async move {
                match body {
                    Ok(mut body) => daemon.call(Call { verb, key, body: std::mem::take(&mut *body) }).await,
                    Err(status) => Answer::problem(status, error::meaning(status)),
                }
            })
        });
    let asked = warp::path::full()
        .and(warp::host::optional())
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<Peer>());
    let reader = site.clone();
    let read = warp::get().and(asked).then(move |path: warp::path::FullPath, host, headers, peer| {
        let knock = Knock { path: path.as_str().to_owned(), host, headers, peer, body: None };
        visit(reader.clone(), knock)
    });
    let doer = site.clone();
    let done = warp::post().and(asked).and(body()).then(
        move |path: warp::path::FullPath, host, headers, peer, body| {
            let knock = Knock { path: path.as_str().to_owned(), host, headers, peer, body: Some(body) };
            visit(doer.clone(), knock)
        },
    );
    let routes =
        file.or(machine).unify().or(described).unify().or(verbs).unify().or(read).unify().or(done).unify();
    let secured = routes.recover(move |rejection| refused(site.clone(), rejection)).map(move |reply: _| {
        let mut response = warp::Reply::into_response(reply);
        for (name, value) in HEADERS.into_iter().chain(lasting.then_some(STRICT)) {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    });
    TowerToHyperService::new(warp::service(secured))
}

/// What was sent; there may be a passphrase in it.
type Body = Zeroizing<Vec<u8>>;

/// That a body did not come in time, or broke off.
#[derive(Debug)]
struct Late;

impl warp::reject::Reject for Late {}

/// A request's body: of a length that is said before and not too large, and here in time.
fn body() -> impl Filter<Extract = (Body,), Error = Rejection> + Clone + Send + Sync + 'static {
    let announced = warp::body::content_length_limit(LARGEST).and(warp::header::<usize>("content-length"));
    announced.and(warp::body::stream()).and_then(async |length, parts| {
        let whole = tokio::time::timeout(PATIENCE, gather(length, parts)).await;
        whole.ok().flatten().ok_or_else(|| warp::reject::custom(Late))
    })
}

async fn gather(length: usize, parts: impl Stream<Item = Result<impl Buf, warp::Error>>) -> Option<Body> {
    // Room for all of it at once: a vector that grows leaves copies behind.
    let mut whole = Zeroizing::new(Vec::with_capacity(length));
    let mut parts = std::pin::pin!(parts);
    while let Some(part) = parts.next().await {
        let mut part = part.ok()?;
        if whole.len() + part.remaining() > length {
            return None;
        }
        while part.has_remaining() {
            let chunk = part.chunk();
            let length = chunk.len();
            whole.extend_from_slice(chunk);
            part.advance(length);
        }
    }
    (whole.len() == length).then_some(whole)
}

/// A request before anything is known of it.
struct Knock {
    path: String,
    host: Option<warp::host::Authority>,
    headers: HeaderMap,
    peer: Option<Peer>,
    /// What was posted, where something was.
    body: Option<Body>,
}

/// Answers a request for a page, or for what a page's form does.
async fn visit(site: Arc<Site>, knock: Knock) -> warp::reply::Response {
    if let Some(rest) = knock.path.strip_prefix("/api/") {
        // A tool is told in its own words.
        let verb = rest.strip_prefix("v1/").is_some_and(|verb| !verb.is_empty() && !verb.contains('/'));
        let status = if verb && knock.body.is_none() { 405 } else { 404 };
        return answered(async move { Answer::problem(status, error::meaning(status)) }).await;
    }
    let health = site.daemon.health();
    let (route, segments) = match routes::find(knock.body.is_some(), &knock.path) {
        Found::Route(route, segments) => (route, segments),
        missing => {
            let status = if matches!(missing, Found::Method) { 405 } else { 404 };
            let here = known(&site, &health, &knock.headers, false);
            return page(&site, &health, here.as_ref(), error::plain(status));
        }
    };
    let here = known(&site, &health, &knock.headers, route.verb != Verb::Live);
    let known_stranger = form::cookie(&knock.headers, STRANGER).filter(|token| token.len() == 64);
    let (stranger, is_new) = match known_stranger {
        Some(token) => (token.to_owned(), false),
        None => match secret() {
            Ok(token) => (token, true),
            Err(error) => return page(&site, &health, None, error::told(500, &error.to_string())),
        },
    };
    let new_stranger = (is_new && here.is_none()).then(|| form::set_cookie(STRANGER, &stranger));
    let visit = Visit {
        from: knock.peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |Peer(address)| address),
        form: knock.body.as_ref().map(|body| Form::parse(body)).unwrap_or_default(),
        site: site.clone(),
        health,
        segments,
        here,
        stranger,
        back: form::cookie(&knock.headers, BACK).filter(|path| is_page(path)).map(ToOwned::to_owned),
    };
    if let Some(refusal) = gate(&visit, route, &knock, is_new) {
        return finish(&site, &visit.health, visit.here.as_ref(), refusal, new_stranger);
    }
    let (health, here) = (visit.health.clone(), visit.here.as_ref().map(|here| here.id.clone()));
    let outcome = (route.answer)(visit).await;
    let outcome = outcome.unwrap_or_else(|refusal| error::refused(&refusal, route.verb == Verb::Post));
    // Looked up again, since what was done may have ended the session or the box's being open.
    let health = if route.verb == Verb::Post { site.daemon.health() } else { health };
    let here = here.and_then(|id| self::here(&site, &id, false));
    finish(&site, &health, here.as_ref(), outcome, new_stranger)
}

/// Who shows a session's cookie, if it counts.
fn known(site: &Arc<Site>, health: &Health, headers: &HeaderMap, seen: bool) -> Option<Here> {
    let id = form::cookie(headers, SESSION).filter(|_| !health.sealed)?;
    here(site, id, seen)
}

fn here(site: &Arc<Site>, id: &str, seen: bool) -> Option<Here> {
    let session = site.sessions.find(id, site.daemon.seals(), Instant::now(), seen)?;
    match site.daemon.standing(&session.person) {
        Ok(standing) => Some(Here { id: id.to_owned(), session, standing }),
        Err(refusal) => {
            if refusal.fault == Fault::Denied {
                site.sessions.end(id);
            }
            None
        }
    }
}

fn allows(here: &Here, needs: Needs) -> bool {
    match needs {
        Needs::Anyone | Needs::Account => true,
        Needs::Act(act) => here.standing.may(act),
    }
}

/// Whether a path is that of a page that can be gone to.
fn is_page(path: &str) -> bool {
    let leads = matches!(routes::find(false, path), Found::Route(route, _) if route.verb == Verb::Get);
    leads && form::fits_cookie(path)
}

/// What stands in the way of a visit, if anything.
fn gate(visit: &Visit, route: &Route, knock: &Knock, no_cookie: bool) -> Option<Outcome> {
    let post = route.verb == Verb::Post;
    match (&visit.here, route.needs) {
        (None, Needs::Anyone) | (Some(_), _) => {}
        (None, _) => {
            let door = if visit.health.sealed { "/unseal" } else { "/sign-in" };
            return Some(match route.verb {
                Verb::Get => Outcome::Go {
                    to: door.to_owned(),
                    cookies: is_page(&knock.path)
                        .then(|| form::set_cookie(BACK, &knock.path))
                        .into_iter()
                        .collect(),
                },
                Verb::Live | Verb::Post if visit.health.sealed => error::plain(503),
                Verb::Live | Verb::Post => error::plain(401),
            });
        }
    }
    let carries = visit.form.carries(visit.token()) && (visit.here.is_some() || !no_cookie);
    let authority = knock.host.as_ref().map(warp::host::Authority::as_str);
    if post && !(carries && form::is_own(&knock.headers, authority)) {
        return Some(error::foreign_form());
    }
    let here = visit.here.as_ref()?;
    let Needs::Act(act) = route.needs else { return None };
    if here.standing.may(act) {
        return None;
    }
    visit.site.daemon.refused(visit.from, &here.session.person, act);
    Some(error::denied(act))
}

/// The answer of an outcome, with its cookies.
fn finish(
    site: &Arc<Site>,
    health: &Health,
    here: Option<&Here>,
    outcome: Outcome,
    new_stranger: Option<String>,
) -> warp::reply::Response {
    let mut response = page(site, health, here, outcome);
    if let Some(cookie) = new_stranger.and_then(|cookie| HeaderValue::from_str(&cookie).ok()) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

fn page(site: &Arc<Site>, health: &Health, here: Option<&Here>, outcome: Outcome) -> warp::reply::Response {
    let mut response = match outcome {
        Outcome::Page(page) => {
            let note = here.and_then(|here| site.sessions.take_note(&here.id));
            let frame = Frame { health, here, place: page.place, title: &page.title, note };
            let mut response =
                warp::reply::html(draw::frame(&frame, page.body).into_string()).into_response();
            *response.status_mut() =
                StatusCode::from_u16(page.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            if let Some(seconds) = page.retry {
                response.headers_mut().insert(RETRY_AFTER, seconds.into());
            }
            response
        }
        Outcome::Go { to, cookies } => {
            let mut response = StatusCode::SEE_OTHER.into_response();
            let headers = response.headers_mut();
            headers.insert(LOCATION, HeaderValue::from_str(&to).unwrap_or(HeaderValue::from_static("/")));
            for cookie in cookies.iter().filter_map(|cookie| HeaderValue::from_str(cookie).ok()) {
                headers.append(SET_COOKIE, cookie);
            }
            response
        }
        Outcome::Live(mut events) => {
            let events = stream::poll_fn(move |context| {
                events.poll_recv(context).map(|event| event.map(Ok::<_, Infallible>))
            });
            typed(warp::reply::stream(events).into_response(), "text/event-stream")
        }
        Outcome::File(name, kind, body) => {
            let mut response = typed(body.into_response(), kind);
            let name = format!("attachment; filename=\"{name}\"");
            if let Ok(name) = HeaderValue::from_str(&name) {
                response.headers_mut().insert("content-disposition", name);
            }
            response
        }
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn typed(mut response: warp::reply::Response, kind: &'static str) -> warp::reply::Response {
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

async fn answered(answer: impl Future<Output = Answer>) -> warp::reply::Response {
    let Answer { status, body } = answer.await;
    let kind = if status < 400 { "application/json" } else { "application/problem+json" };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = fresh(typed(warp::reply::with_status(body, status).into_response(), kind));
    // What RFC 9110 has these two say besides.
    let besides = match status {
        StatusCode::UNAUTHORIZED => Some((WWW_AUTHENTICATE, "Bearer")),
        StatusCode::METHOD_NOT_ALLOWED => Some((ALLOW, "POST")),
        _ => None,
    };
    if let Some((name, value)) = besides {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Says that an answer is of this moment.
fn fresh(mut response: warp::reply::Response) -> warp::reply::Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn refused(site: Arc<Site>, rejection: Rejection) -> Result<warp::reply::Response, Infallible> {
    Ok(page(&site, &site.daemon.health(), None, error::plain(status_of(&rejection))))
}

/// What a rejection means.
fn status_of(rejection: &Rejection) -> u16 {
    // What was sent to the right place is told first: every other place refuses the method.
    if rejection.is_not_found() {
        404
    } else if rejection.find::<warp::reject::PayloadTooLarge>().is_some() {
        413
    } else if rejection.find::<warp::reject::LengthRequired>().is_some() {
        411
    } else if rejection.find::<Late>().is_some() {
        408
    } else if rejection.find::<warp::reject::MethodNotAllowed>().is_some() {
        405
    } else {
        400
    }
}
