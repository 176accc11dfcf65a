use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use crate::AdminError;

/// What strangers may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; more are closed at once.
    pub connections: usize,
    /// Connections at once from one address.
    pub connections_of_one: usize,
    /// Time for the TLS handshake, and for the headers of each request.
    pub patience: Duration,
    /// Bytes of a request's headers at most.
    pub header_bytes: usize,
    /// Streams at once on one HTTP/2 connection.
    pub streams: u32,
}

/// The address at the other end of a connection, among a request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            connections_of_one: 64,
            patience: Duration::from_secs(10),
            header_bytes: 32 << 10,
            streams: 64,
        }
    }
}

/// Answers on a listening socket until `end` completes; then open requests are finished, for [`Limits::patience`].
///
/// # Errors
/// [`AdminError::Socket`] where the socket is none that can be listened on.
pub async fn serve<S, B>(
    socket: std::net::TcpListener,
    tls: Arc<ServerConfig>,
    limits: Limits,
    service: S,
    end: impl Future<Output = ()>,
) -> Result<(), AdminError>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
    B: hyper::body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    socket.set_nonblocking(true).map_err(AdminError::Socket)?;
    let listener = TcpListener::from_std(socket).map_err(AdminError::Socket)?;
    let acceptor = TlsAcceptor::from(tls);
    let door = Arc::new(Door { limits, inside: Mutex::default() });
    let graceful = GracefulShutdown::new();
    tokio::pin!(end);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut end => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!("a connection to the admin port could not be accepted: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(place) = door.enter(address.ip()) else {
            debug!("a connection to the admin port was closed: too many are open");
            continue;
        };
        // Answers are small and a person waits for them.
        if let Err(error) = stream.set_nodelay(true) {
            debug!("a connection of the admin port stays slow: {error}");
        }
        let (acceptor, service, watcher) = (acceptor.clone(), service.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _place = place;
            let stream = match tokio::time::timeout(limits.patience, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return debug!("a handshake on the admin port failed: {error}"),
                Err(_) => return debug!("a handshake on the admin port took too long"),
            };
            let mut builder = Builder::new(TokioExecutor::new());
            builder
                .http1()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.patience)
                .max_buf_size(limits.header_bytes.max(8 << 10))
                .http2()
                .timer(TokioTimer::new())
                .max_header_list_size(limits.header_bytes.try_into().unwrap_or(u32::MAX))
                .max_concurrent_streams(limits.streams)
                .keep_alive_interval(limits.patience)
                .keep_alive_timeout(limits.patience);
            let from = service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(Peer(address.ip()));
                service.call(request)
            });
            let connection = builder.serve_connection(TokioIo::new(stream), from).into_owned();
            if let Err(error) = watcher.watch(connection).await {
                debug!("a connection of the admin port ended: {error}");
            }
        });
    }
    drop(listener);
    // Who does not finish in time is cut off.
    if tokio::time::timeout(limits.patience, graceful.shutdown()).await.is_err() {
        debug!("requests on the admin port were cut off at the end");
    }
    Ok(())
}

/// Counts who is inside.
struct Door {
    limits: Limits,
    inside: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection's place; given back when dropped.
struct Place {
    door: Arc<Door>,
    address: IpAddr,
}

impl Door {
    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = inside.values().sum();
        let own = inside.get(&address).copied().unwrap_or(0);
        if all >= self.limits.connections || own >= self.limits.connections_of_one {
            return None;
        }
        inside.insert(address, own + 1);
        Some(Place { door: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.door.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = inside.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                inside.remove(&self.address);
            }
        }
    }
}
