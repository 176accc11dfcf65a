//! The admin port: TLS 1.3 on a socket that was opened by someone else, limits on what a stranger may cost, and the
//! pages behind it. It serves what the daemon hands it and asks nothing of the network: it binds no address, connects
//! nowhere, and its pages name no other host. Keys come and go as values; it reads only the certificate files that
//! the site configured.

mod authority;
mod error;
mod identity;
mod listener;
mod page;
mod site;

pub use authority::Authority;
pub use error::AdminError;
pub use identity::{Certificates, Identity};
pub use listener::{Limits, serve};
pub use site::{Answer, Call, Health, site};
