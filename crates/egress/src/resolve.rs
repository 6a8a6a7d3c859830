//! From a host to the addresses that may be dialled: resolved once, all judged, and exactly those
//! handed on. Nothing is resolved a second time, so a name that changes its mind changes nothing.
//!
//! Absent: dialling.

use std::io;
use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;

use crate::address::{Reach, reach};
use crate::denial::Denial;
use crate::target::{Host, Target};

/// Finds the addresses of names.
#[async_trait]
pub trait Resolver: Send + Sync {
    /// All addresses of a name. **Contract:** called only for names that the list allows.
    ///
    /// # Errors
    /// When the name has none, or could not be looked up; both are told to the box in the same words.
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// The resolver of the machine that the door runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        // The final dot keeps search domains out: the name that was matched is the name asked for.
        // Only names that DNS does not know, as those in the hosts file, are asked for without it.
        let found: Vec<SocketAddr> = match tokio::net::lookup_host((format!("{name}."), 0)).await {
            Ok(found) => found.collect(),
            Err(_) => tokio::net::lookup_host((name, 0)).await?.collect(),
        };
        Ok(found.iter().map(SocketAddr::ip).collect())
    }
}

/// Whether an address is one of this machine: the kernel binds to no other. Nothing is sent.
fn is_own(address: IpAddr) -> bool {
    address.is_unspecified() || address.is_loopback() || std::net::UdpSocket::bind((address, 0)).is_ok()
}

/// Most addresses of a name that are tried.
const MAX_ADDRESSES: usize = 8;

/// The addresses of a target, each allowed.
///
/// One bad address among good ones refuses the name: it is a sign of an attack, not of a mistake.
///
/// # Errors
/// [`Denial`] for a name without addresses and for an address that is not allowed.
pub(crate) async fn addresses(
    resolver: &dyn Resolver,
    target: &Target,
    private: bool,
    never: &[SocketAddr],
) -> Result<Vec<SocketAddr>, Denial> {
    let host = || target.host.to_string();
    let found = match &target.host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => resolver.resolve(name).await.map_err(|_| Denial::Unresolved { host: host() })?,
    };
    if found.is_empty() {
        return Err(Denial::Unresolved { host: host() });
    }
    for address in &found {
        let plain = address.to_canonical();
        let is_never = |never: &SocketAddr| {
            // Who listens everywhere listens on every address of this machine.
            let there = if never.ip().is_unspecified() { is_own(plain) } else { never.ip().to_canonical() == plain };
            there && (never.port() == 0 || never.port() == target.port)
        };
        if never.iter().any(is_never) {
            return Err(Denial::ForbiddenAddress { host: host(), address: address.to_string() });
        }
        match reach(*address) {
            Reach::Public => {}
            Reach::Private if private => {}
            Reach::Private => return Err(Denial::PrivateAddress { host: host(), address: address.to_string() }),
            Reach::Never => return Err(Denial::ForbiddenAddress { host: host(), address: address.to_string() }),
        }
    }
    Ok(found.into_iter().take(MAX_ADDRESSES).map(|address| SocketAddr::new(address, target.port)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Loopback;

    #[async_trait]
    impl Resolver for Loopback {
        async fn resolve(&self, _name: &str) -> io::Result<Vec<IpAddr>> {
            Ok(vec![IpAddr::from([127, 0, 0, 1])])
        }
    }

    #[tokio::test]
    async fn a_server_that_listens_everywhere_is_reached_by_none_of_its_addresses() {
        let target = |port| Target { host: Host::Name("inside.example".to_owned()), port };
        for listens in ["0.0.0.0:7878", "[::]:7878", "127.0.0.1:7878"] {
            let never = [listens.parse().unwrap()];
            let refused = addresses(&Loopback, &target(7878), true, &never).await;
            assert!(matches!(refused, Err(Denial::ForbiddenAddress { .. })), "{listens}: {refused:?}");
            assert!(addresses(&Loopback, &target(7879), true, &never).await.is_ok(), "another port is another program");
        }
    }
}
