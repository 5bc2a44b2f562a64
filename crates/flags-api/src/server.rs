//! HTTP servers: sockets, middleware and shutdown.

use std::{net::TcpListener, time::Duration};

use actix_web::{
    HttpServer,
    dev::{Server, ServerHandle},
    middleware::{Condition, from_fn},
    web::{self, Bytes, Data},
};
use socket2::SockRef;

use crate::{cors, json::to_json, request_middleware::request_middleware, routes, state::App};

/// Timeout for requests in progress when shutdown begins, in seconds. The whole shutdown must take less than 10 s.
const SHUTDOWN_TIMEOUT_SECONDS: u64 = 8;

/// Size of each connection's send buffer, in bytes. Linux doubles the value.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Timeout for unacknowledged data and for a closed receive window (`TCP_USER_TIMEOUT`).
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Limits the bytes that are buffered for a client that does not read, and the time until its connection is closed.
/// Accepted connections inherit the options of the listener.
fn set_socket_options(listener: &TcpListener) -> std::io::Result<()> {
    let socket = SockRef::from(listener);
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))
}

/// Serves the API on `listener` until the server is stopped through its handle. Does not install signal handlers.
pub fn serve(app: &App, listener: TcpListener) -> std::io::Result<Server> {
    set_socket_options(&listener)?;
    let workers = app.settings.workers;
    let data = Data::new(app.clone());
    let document = Bytes::from(to_json(&routes::openapi()));
    let server = HttpServer::new(move || {
        let settings = &data.settings;
        actix_web::App::new()
            .app_data(data.clone())
            .wrap(Condition::new(!settings.cors_origins.is_empty(), cors::cors(&settings.cors_origins)))
            .wrap(from_fn(request_middleware))
            .configure(|config| {
                routes::configure(config, document.clone());
                if settings.metrics_with_api {
                    routes::configure_metrics(config);
                }
            })
            .default_service(web::to(routes::unmatched))
    });
    Ok(server.workers(workers).shutdown_timeout(SHUTDOWN_TIMEOUT_SECONDS).disable_signals().listen(listener)?.run())
}

/// Serves `/metrics` only, on a separate address.
pub fn serve_metrics(app: &App, listener: TcpListener) -> std::io::Result<Server> {
    let data = Data::new(app.clone());
    let server = HttpServer::new(move || {
        actix_web::App::new()
            .app_data(data.clone())
            .wrap(from_fn(request_middleware))
            .configure(routes::configure_metrics)
            .default_service(web::to(routes::unmatched))
    });
    Ok(server.workers(1).shutdown_timeout(SHUTDOWN_TIMEOUT_SECONDS).disable_signals().listen(listener)?.run())
}

/// Stops a server gracefully: it accepts no new connections and finishes the requests in progress.
pub async fn stop(handle: &ServerHandle) {
    handle.stop(true).await;
}
