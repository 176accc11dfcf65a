use std::convert::Infallible;
use std::sync::Arc;

use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use warp::http::StatusCode;
use warp::{Filter, Rejection, Reply};

use crate::page;

/// What anyone who reaches the port may know: how the box stands, nothing of what it holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Health {
    /// Version of `moatd`.
    pub version: String,
    /// Seconds since it started.
    pub uptime: u64,
    /// True while no key is there that opens the vault.
    pub sealed: bool,
    /// What a person is to do now, if anything: unseal, or look at an alarm.
    pub wanted: Option<String>,
    /// What the process gave up: name, and why not where it could not.
    pub protections: Vec<(String, Result<(), String>)>,
    /// Ways out that the canary tried: name, tries, and how many of them succeeded.
    pub canary: Vec<(String, u64, u64)>,
    /// Seconds since 1970 of the canary's last round.
    pub tried: Option<i64>,
}

impl Health {
    /// True where nothing waits for a person and no way out is open.
    pub fn is_well(&self) -> bool {
        !self.sealed && self.wanted.is_none() && self.canary.iter().all(|(_, _, open)| *open == 0)
    }
}

/// One call of the API.
#[derive(Debug)]
pub struct Call {
    /// The verb: what stands after `/api/v1/`.
    pub verb: String,
    /// The API key that the caller shows.
    pub key: Option<String>,
    /// What goes with the verb, as JSON; empty for nothing.
    pub body: Vec<u8>,
}

/// The answer to a [`Call`].
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// JSON: the reply, or a problem (RFC 9457) where the status says so.
    pub body: Vec<u8>,
}

impl Answer {
    /// A problem for a status: what happened, and what to do.
    pub fn problem(status: u16, detail: &str) -> Self {
        let title = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        let problem = serde_json::json!({ "title": title, "status": status, "detail": detail });
        Self { status, body: problem.to_string().into_bytes() }
    }
}

/// Bytes of a call's body at most.
const LARGEST: u64 = 1 << 20;

/// Headers of every answer. The pages need no script and nothing from anywhere else.
const HEADERS: [(&str, &str); 7] = [
    (
        "content-security-policy",
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("strict-transport-security", "max-age=31536000"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
];

/// The pages: `/` and `/style.css`; `/api/v1/health` for machines (200 where all is well, 503 otherwise); and
/// `POST /api/v1/VERB` for every other verb, which `api` answers.
pub fn site<F>(
    health: impl Fn() -> Health + Send + Sync + 'static,
    api: impl Fn(Call) -> F + Clone + Send + Sync + 'static,
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
+ 'static
where
    F: Future<Output = Answer> + Send + 'static,
{
    let health = Arc::new(health);
    let asked = health.clone();
    let overview = warp::path::end().map(move || fresh(warp::reply::html(page::overview(&asked()))));
    let machine = warp::path!("api" / "v1" / "health").map(move || {
        let health = health();
        let status = if health.is_well() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        fresh(warp::reply::with_status(warp::reply::json(&health), status))
    });
    let style = warp::path!("style.css")
        .map(|| warp::reply::with_header(page::STYLE, CONTENT_TYPE, "text/css; charset=utf-8"));
    let verbs = warp::path!("api" / "v1" / String)
        .and(warp::post())
        .and(warp::header::optional("authorization"))
        .and(warp::body::content_length_limit(LARGEST))
        .and(warp::body::bytes())
        .then(move |verb, authorization: Option<String>, body: Bytes| {
            let key = authorization.and_then(|text| text.strip_prefix("Bearer ").map(ToOwned::to_owned));
            answered(api(Call { verb, key, body: body.to_vec() }))
        });
    let routes = warp::get().and(overview.or(machine).or(style)).or(verbs).recover(refused);
    let secured = routes.map(|reply| {
        let mut response = warp::reply::Reply::into_response(reply);
        for (name, value) in HEADERS {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    });
    TowerToHyperService::new(warp::service(secured))
}

async fn answered(answer: impl Future<Output = Answer>) -> impl Reply {
    let Answer { status, body } = answer.await;
    let kind = if status < 400 { "application/json" } else { "application/problem+json" };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    fresh(warp::reply::with_header(warp::reply::with_status(body, status), CONTENT_TYPE, kind))
}

/// Says that an answer is of this moment.
fn fresh(reply: impl Reply) -> impl Reply {
    warp::reply::with_header(reply, CACHE_CONTROL, "no-store")
}

async fn refused(rejection: Rejection) -> Result<impl Reply, Infallible> {
    let status = if rejection.is_not_found() {
        StatusCode::NOT_FOUND
    } else if rejection.find::<warp::reject::MethodNotAllowed>().is_some() {
        StatusCode::METHOD_NOT_ALLOWED
    } else if rejection.find::<warp::reject::PayloadTooLarge>().is_some() {
        StatusCode::PAYLOAD_TOO_LARGE
    } else if rejection.find::<warp::reject::LengthRequired>().is_some() {
        StatusCode::LENGTH_REQUIRED
    } else {
        StatusCode::BAD_REQUEST
    };
    Ok(warp::reply::with_status(warp::reply::html(page::refusal(status.as_u16())), status))
}
