//! Answers while there is no checkpoint yet, as long as a download takes: probes tell how far it is, all else is a 503.

use std::net::TcpListener;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::http::header::X_CONTENT_TYPE_OPTIONS;
use actix_web::middleware::{DefaultHeaders, NormalizePath};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};

use super::{openai, probes, routes};
use crate::engine::Health;
use crate::error::{Error, Unavailable};
use crate::startup::Startup;

/// Time for those who connected before the room closed to send their request: actix-web drops who has not when it stops.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// A small server on the socket that the real one takes over.
pub struct WaitingRoom {
    handle: ServerHandle,
}

impl WaitingRoom {
    /// Answers on `listener` until [`WaitingRoom::close`], by what `startup` says.
    pub fn open(listener: &TcpListener, startup: Startup) -> Result<WaitingRoom, String> {
        let name = |error: std::io::Error| format!("the server's socket: {error}");
        let startup = web::Data::new(startup);
        let app = move || {
            App::new()
                .app_data(startup.clone())
                .default_service(web::to(answer))
                .wrap(DefaultHeaders::new().add((X_CONTENT_TYPE_OPTIONS, "nosniff")))
                .wrap(NormalizePath::trim())
        };
        let server = HttpServer::new(app)
            .workers(1)
            // Nobody's next request should come to a server that is about to go.
            .keep_alive(actix_web::http::KeepAlive::Disabled)
            .disable_signals()
            .shutdown_timeout(1)
            .listen(listener.try_clone().map_err(name)?)
            .map_err(name)?
            .run();
        let handle = server.handle();
        tokio::spawn(server);
        Ok(WaitingRoom { handle })
    }

    /// Lets go of the socket: who connects from now on waits for the next server there, and who is here already is answered.
    pub async fn close(self) {
        self.handle.pause().await;
        tokio::spawn(async move {
            tokio::time::sleep(LAST_ANSWERS).await;
            self.handle.stop(true).await;
        });
    }
}

async fn answer(request: HttpRequest, startup: web::Data<Startup>) -> HttpResponse {
    let path = request.path();
    if path.ends_with("/livez") || path.ends_with("/health/live") {
        return probes::ok();
    }
    let loading = Error::Unavailable(Unavailable::Loading);
    if routes::is_openais(path) {
        return openai::respond_error(&loading);
    }
    probes::respond(&loading, Health::Unavailable(Unavailable::Loading), startup.standing())
}
