//! Binds the socket, runs actix-web, and shuts it down without losing a request.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use actix_web::middleware::{NormalizePath, from_fn};
use actix_web::{App, HttpServer, dev, web};
use futures_util::FutureExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::docs::Document;
use super::in_flight::{self, InFlight};
use super::routes::Routes;
use super::{HttpSettings, auth, cors, reply, routes};
use crate::generation::Service;

/// Threads that read and write HTTP. The work is done elsewhere.
const MAX_WORKERS: usize = 4;

/// Where to listen when port 80 is not permitted.
const FALLBACK_PORT: u16 = 8080;

/// Longer than the keep-alive of common proxies, so that the proxy closes first and no request meets a closing socket.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// Time to write the last responses after every request was answered.
const LAST_WRITES_S: u64 = 2;

const DRAIN_INTERVAL: Duration = Duration::from_millis(20);

/// A server whose socket is open.
pub struct Server {
    server: dev::Server,
    address: SocketAddr,
    service: Service,
    in_flight: InFlight,
    shutdown_grace: Duration,
}

impl Server {
    /// Opens the socket. The model may still be loading: requests are answered 503 until it is ready.
    pub fn bind(service: Service, settings: HttpSettings) -> Result<Server, String> {
        Server::on(listen(&settings.host, settings.port)?, service, settings)
    }

    /// Like [`Server::bind`], on a socket that is open already.
    pub fn on(listener: TcpListener, service: Service, settings: HttpSettings) -> Result<Server, String> {
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let in_flight = InFlight::default();
        let data = (web::Data::new(service.clone()), web::Data::new(in_flight.clone()));
        let shutdown_grace = settings.shutdown_grace;
        let document = web::Data::new(Document::new(&settings));
        let routes = web::Data::new(Routes::new(&settings));
        let settings = web::Data::new(settings);
        let app = move || {
            App::new()
                .app_data(data.0.clone())
                .app_data(data.1.clone())
                .app_data(settings.clone())
                .app_data(document.clone())
                .app_data(routes.clone())
                .configure(|config| routes::configure(config, &settings))
                .default_service(web::to(routes::not_found))
                .wrap(from_fn(in_flight::count))
                .wrap(from_fn(auth::guard))
                .wrap(cors::cors(&settings.cors_origins))
                .wrap(from_fn(reply::finish))
                .wrap(NormalizePath::trim())
        };
        let server = HttpServer::new(app)
            .workers(num_workers())
            .keep_alive(KEEP_ALIVE)
            // A client that hangs up is noticed while its answer is being made, also by a stream that is silent: its handler or
            // body is dropped at once, and dropping cancels. By default actix-web would let it run to its end.
            .h1_allow_half_closed(false)
            .disable_signals()
            .shutdown_timeout(LAST_WRITES_S)
            .listen(listener)
            .map_err(|error| format!("{address}: {error}"))?
            .run();
        Ok(Server { server, address, service, in_flight, shutdown_grace })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is over, or the engine has died, which is an error. From then on new requests are answered 503,
    /// and those in flight are finished, as long as the grace allows.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), String> {
        let Server { server, service, in_flight, shutdown_grace, .. } = self;
        let handle = server.handle();
        let told = async {
            let why = tokio::select! {
                () = shutdown => Ok(()),
                reason = service.engine().died() => {
                    Err(format!("the engine died ({reason}); the server must be started anew"))
                }
            };
            tracing::info!(grace_s = shutdown_grace.as_secs(), "shutting down: requests in flight are finished");
            service.drain();
            (why, drained(&service, &in_flight, shutdown_grace).await)
        };
        tokio::pin!(server);
        let (why, is_drained) = tokio::select! {
            served = &mut server => return served.map_err(|error| error.to_string()),
            told = told => told,
        };
        let (served, ()) = tokio::join!(server, handle.stop(is_drained));
        why.and(served.map_err(|error| error.to_string()))
    }
}

/// Serves until the process is told to end. Told again, it ends at once, and that is an error.
pub async fn serve(service: Service, settings: HttpSettings) -> Result<(), String> {
    let (listener, signals) = (listen(&settings.host, settings.port)?, Signals::new()?);
    serve_on(listener, signals, service, settings).await
}

/// [`serve`], on a socket that is open already, and by signals that are listened to already.
pub async fn serve_on(
    listener: TcpListener,
    mut signals: Signals,
    service: Service,
    settings: HttpSettings,
) -> Result<(), String> {
    let server = Server::on(listener, service, settings)?;
    let (tell, told) = oneshot::channel();
    let told_again = async {
        signals.next().await;
        let _ = tell.send(());
        signals.next().await;
    };
    tokio::select! {
        served = server.run(told.map(|_| ())) => served,
        () = told_again => Err("told to end a second time: requests in flight were cut off".to_owned()),
    }
}

/// What tells the process to end: SIGTERM, SIGINT.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on they do not end the process by themselves.
    pub fn new() -> Result<Signals, String> {
        let listen = |kind| signal(kind).map_err(|error| format!("signals: {error}"));
        Ok(Signals { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Threads that serve HTTP.
pub(super) fn num_workers() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(MAX_WORKERS))
}

/// Opens the socket. Errors are one line for the person who deploys.
pub fn listen(host: &str, port: u16) -> Result<TcpListener, String> {
    let listener = match TcpListener::bind((host, port)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && port == 80 => {
            tracing::warn!("port 80 is not permitted to this user ({error}); listening on {FALLBACK_PORT} instead");
            TcpListener::bind((host, FALLBACK_PORT))
        }
        bound => bound,
    }
    .map_err(|error| format!("cannot listen on {host}:{port}: {error}"))?;
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "listening");
    }
    Ok(listener)
}

/// Waits until every request is answered, at most for `grace`. Whether that was so.
async fn drained(service: &Service, in_flight: &InFlight, grace: Duration) -> bool {
    let started = Instant::now();
    loop {
        let left = in_flight.count() + service.num_running() + service.queue_len();
        if left == 0 {
            return true;
        }
        if started.elapsed() > grace {
            tracing::warn!(left, "the grace is over: requests were cut off");
            return false;
        }
        tokio::time::sleep(DRAIN_INTERVAL).await;
    }
}
