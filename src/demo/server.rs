//! The arena over HTTP, at the real API's paths.
//!
//! Must not know: how the arena works.

use super::Arena;
use crate::clock;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;

/// Answers on `listener` until `shutdown` is done; the arena begins now and lives with this future.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: TcpListener,
    seed: u64,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let arena = Arc::new(Mutex::new(Arena::new(seed, clock::now())));
    let router = Router::new().route("/{endpoint}", get(answer)).with_state(arena);
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}

async fn answer(State(arena): State<Arc<Mutex<Arena>>>, Path(endpoint): Path<String>) -> Response {
    let body = {
        // A panic in between leaves an arena that can go on.
        let mut arena = arena.lock().unwrap_or_else(PoisonError::into_inner);
        arena.advance(clock::now());
        arena.body(&endpoint)
    };
    match body {
        Some(body) => ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response(),
        None => (StatusCode::NOT_FOUND, "no such endpoint\n").into_response(),
    }
}
