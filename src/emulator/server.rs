//! The HTTP server: accepts connections on one port and routes each request to its service and operation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::Request;
use hyper::header::{DATE, HeaderValue};
use hyper_util::rt::TokioIo;
use s3s::Body;
use s3s::dto::{Timestamp, TimestampFormat};
use tokio::net::{TcpListener, TcpStream};

use super::authentication::authenticate;
use super::caller::Caller;
use super::clock;
use super::control;
use super::gate::{Gate, Reset};
use super::protocol::Reply;
use super::service::ApiCall;

/// Accepts connections until the shutdown.
pub(crate) async fn serve(gate: Arc<Gate>, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = gate.shared.shutdown.cancelled() => return,
        };
        match accepted {
            Ok((socket, _)) => {
                gate.shared.tasks.spawn(connection(Arc::clone(&gate), socket));
            }
            Err(error) => {
                tracing::warn!(error = error.to_string(), "failed to accept a connection");
                // Out of file descriptors, most likely: give the others time to end.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(gate: Arc<Gate>, socket: TcpStream) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(error = error.to_string(), "failed to set an option of a connection");
    }
    let shutdown = gate.shared.shutdown.clone();
    let is_reset = Arc::new(AtomicBool::new(false));
    let asks = Arc::clone(&is_reset);
    let service = hyper::service::service_fn(move |request| {
        let (gate, asks) = (Arc::clone(&gate), Arc::clone(&asks));
        async move {
            let answer = handle(&gate, request.map(Body::from)).await;
            asks.store(Reset::is_asked_by(&answer), Ordering::Relaxed);
            answer
        }
    });
    let mut served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
    tokio::select! {
        ended = &mut served => {
            if let Err(error) = ended {
                tracing::debug!(error = error.to_string(), "a connection ended early");
            }
        }
        () = shutdown.cancelled() => {}
    }
    if is_reset.load(Ordering::Relaxed)
        && let Err(error) = served.into_parts().io.into_inner().set_zero_linger()
    {
        tracing::warn!(error = error.to_string(), "failed to reset a connection");
    }
}

/// Answers a request; an error drops the connection without an answer.
async fn handle(gate: &Gate, mut request: Request<Body>) -> anyhow::Result<Reply> {
    if control::is_own(request.uri().path()) {
        return control::own(gate, request).await;
    }
    let (service, operation) = gate.services.route(&mut request).await?;
    let request_id = gate.shared.next_id();
    // A request without a valid signature is not counted.
    let authentic = if service.needs_signature(&operation) {
        authenticate(&gate.shared, service.signing(), request).await?
    } else {
        Ok((request, Caller::anonymous(&gate.shared.config.account)))
    };
    let (request, caller) = match authentic {
        Ok(authentic) => authentic,
        Err(error) => return Ok(identified(service.refuse(error), &request_id)),
    };
    let call = ApiCall { operation, request, caller, request_id: request_id.clone(), shared: Arc::clone(&gate.shared) };
    Ok(identified(gate.pass(service, call).await?, &request_id))
}

fn identified(mut reply: Reply, request_id: &str) -> Reply {
    if let Ok(id) = HeaderValue::from_str(request_id) {
        reply.headers_mut().insert("x-amzn-requestid", id.clone());
        reply.headers_mut().entry("x-amz-request-id").or_insert(id);
    }
    if clock::is_set() {
        // Clients correct their own time by it.
        reply.headers_mut().extend(date().map(|date| (DATE, date)));
    }
    reply
}

/// The time of day by the emulator's clock, as HTTP writes it.
fn date() -> Option<HeaderValue> {
    let mut text = Vec::new();
    Timestamp::from(clock::now()).format(TimestampFormat::HttpDate, &mut text).ok()?;
    HeaderValue::from_bytes(&text).ok()
}
