//! The admin port: TLS 1.3 on a socket that was opened by someone else, limits on what a stranger may cost, the web UI
//! and the API's frame. It draws and keeps the rules of HTTP: sessions, forms, headers, who may see which page. What it
//! shows and does comes from a [`Daemon`] that it is handed; it asks nothing of the network, binds no address, and its
//! pages name no other host. Keys come and go as values; it reads only the certificate files that the site configured.

mod authority;
mod daemon;
mod draw;
mod error;
mod form;
mod identity;
mod limiter;
mod listener;
mod live;
mod pages;
mod routes;
mod session;
mod site;

pub use authority::Authority;
pub use daemon::{Answer, Call, Daemon, Health, Refusal, SignedIn, Standing};
pub use error::AdminError;
pub use identity::{Certificates, Identity};
pub use listener::{Limits, Peer, serve};
pub use routes::{Needs, RouteFacts, routes};
pub use session::Stay;
pub use site::site;
