use std::convert::Infallible;
use std::sync::Arc;

use hyper::body::Incoming;
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

/// The pages: `/` and `/style.css`, and `/api/v1/health` for machines (200 where all is well, 503 otherwise).
pub fn site(
    health: impl Fn() -> Health + Send + Sync + 'static,
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
    let routes = warp::get().and(overview.or(machine).or(style)).recover(refused);
    let secured = routes.map(|reply| {
        let mut response = warp::reply::Reply::into_response(reply);
        for (name, value) in HEADERS {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    });
    TowerToHyperService::new(warp::service(secured))
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
    } else {
        StatusCode::BAD_REQUEST
    };
    Ok(warp::reply::with_status(warp::reply::html(page::refusal(status.as_u16())), status))
}
