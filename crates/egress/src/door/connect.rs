//! CONNECT: the decision on a tunnel, and the connection that it will carry.
//!
//! Absent: the bytes in it; they follow in `tunnel` once the box has its answer.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::{Request, Response};

use super::answer;
use super::body::Body;
use super::serve::Session;
use super::tunnel::{Blind, Next, Opened};
use super::upstream::dial;
use crate::audit::OpenRecord;
use crate::decide::Tunnel;
use crate::denial::Denial;
use crate::inject::check_placeholders;
use crate::target::{Authority, Target};

pub(super) async fn answer_to(mut request: Request<Incoming>, session: &Arc<Session>) -> Response<Body> {
    let mut record = OpenRecord::new(&session.inner.book, "CONNECT", "connect");
    let decided = decide(&request, session, &mut record);
    let (target, tunnel) = match decided {
        Ok(decided) => decided,
        Err(denial) => {
            record.denied(&denial);
            return answer::denied(&denial);
        }
    };
    let upgrade = hyper::upgrade::on(&mut request);
    match tunnel {
        Tunnel::Opened => {
            record.silent();
            session.follow_with(Next::Open(Opened { upgrade, target, record }));
            answer::connected()
        }
        Tunnel::Blind { entry, private, tls } => {
            record.allowed_by(&entry);
            let inner = &session.inner;
            let addresses = match inner.addresses(&target, private).await {
                Ok(addresses) => addresses,
                Err(denial) => {
                    record.denied(&denial);
                    return answer::denied(&denial);
                }
            };
            match dial(inner, &session.activity, &target, &addresses).await {
                Ok((upstream, address, meter)) => {
                    record.dialled(address, &meter);
                    session.follow_with(Next::Blind(Blind { upgrade, upstream, target, tls, record }));
                    answer::connected()
                }
                Err(failure) => {
                    record.failed(&failure.to_string());
                    answer::failed(&failure.to_string())
                }
            }
        }
    }
}

fn decide(request: &Request<Incoming>, session: &Session, record: &mut OpenRecord) -> Result<(Target, Tunnel), Denial> {
    let inner = &session.inner;
    let written = request.uri().authority().map(hyper::http::uri::Authority::as_str).unwrap_or_default();
    record.to(written, 0);
    let target = Target::parse(written)?;
    record.to(&target.host.to_string(), target.port);
    let mut hosts = request.headers().get_all(HOST).iter();
    if let Some(host) = hosts.next() {
        let text = host.to_str().map_err(|_| Denial::HostMismatch)?;
        let named = Authority::parse(text)?;
        // Some programs leave the port out here.
        let same_port = named.port.is_none_or(|port| port == target.port);
        if named.host != target.host || !same_port || hosts.next().is_some() {
            return Err(Denial::HostMismatch);
        }
    }
    if let Some(cap_bytes) = inner.total.used_up() {
        return Err(Denial::ByteCap { cap_bytes });
    }
    let tunnel = inner.list.tunnel(&target)?;
    check_placeholders(request.headers(), None, None)?;
    if tunnel == Tunnel::Opened && inner.authority.is_none() {
        return Err(Denial::NoAuthority);
    }
    Ok((target, tunnel))
}
