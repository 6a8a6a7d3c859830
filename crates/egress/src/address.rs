//! Which addresses may be dialled: public ones by default, a company's own if the entry says so,
//! and some never.
//!
//! An IPv6 address that carries an IPv4 address inside (mapped, compatible, NAT64, 6to4, Teredo) is
//! judged by what it carries. Absent: names; they are resolved first, and the address that was
//! judged is the one that is dialled.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How far an address reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// The public internet.
    Public,
    /// Loopback, private networks, carrier-grade NAT, unique local: an entry may allow it.
    Private,
    /// Link-local and so metadata services, multicast, broadcast, unspecified, reserved: never.
    Never,
}

/// Judges an address.
#[must_use]
pub fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(v4) => reach_v4(v4),
        IpAddr::V6(v6) => reach_v6(v6),
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    // Alibaba's and Oracle's metadata services stand in ranges that are otherwise shared or private.
    const METADATA: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];
    let [a, b, c, _] = address.octets();
    if METADATA.contains(&address) {
        return Reach::Never;
    }
    match (a, b, c) {
        (0, ..) | (169, 254, _) | (192, 0, 0) | (224..=255, ..) => Reach::Never,
        (10 | 127, ..) | (192, 168, _) | (172, 16..=31, _) | (100, 64..=127, _) => Reach::Private,
        // Benchmarks, documentation and the old relay of 6to4 lead nowhere public.
        (198, 18 | 19, _) | (192, 0, 2) | (198, 51, 100) | (203, 0, 113) | (192, 88, 99) => Reach::Private,
        _ => Reach::Public,
    }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    // AWS's metadata service stands among the unique local addresses.
    const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| {
        let [w, x] = high.to_be_bytes();
        let [y, z] = low.to_be_bytes();
        reach_v4(Ipv4Addr::new(w, x, y, z))
    };
    if address == METADATA {
        return Reach::Never;
    }
    match (a, b) {
        _ if address == Ipv6Addr::LOCALHOST => Reach::Private,
        _ if address == Ipv6Addr::UNSPECIFIED => Reach::Never,
        // Mapped, translated and compatible.
        (0, 0) if (c, d) == (0, 0) && (e == 0 && (f == 0xffff || f == 0) || (e, f) == (0xffff, 0)) => v4(g, h),
        (0x64, 0xff9b) if (c, d, e, f) == (0, 0, 0, 0) => v4(g, h),
        // A network's own NAT64 prefix.
        (0x64, 0xff9b) => Reach::Private.max(v4(g, h)),
        // 6to4, and Teredo with its client's address inverted.
        (0x2002, _) => v4(b, c),
        (0x2001, 0) => Reach::Private.max(v4(!g, !h)),
        (0x2001, 0xdb8) | (0x3fff, 0..=0xfff) => Reach::Private,
        (0xfc00..=0xfdff, _) => Reach::Private,
        (0x2000..=0x3fff, _) => Reach::Public,
        // Link-local, site-local, multicast, discard, and all that is not given out yet.
        _ => Reach::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_an_inner_address_is_seen_through() {
        let cases = [
            (
                Reach::Public,
                "1.1.1.1 9.255.255.255 11.0.0.1 172.15.0.1 172.32.0.1 100.63.0.1 100.128.0.1 2606:4700::1111 ::ffff:1.1.1.1 64:ff9b::101:101 2002:101:101::1",
            ),
            (
                Reach::Private,
                "127.0.0.1 127.8.8.8 10.1.2.3 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 198.18.0.1 192.0.2.1 ::1 fc00::1 fd12::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::127.0.0.1 ::ffff:0:10.0.0.1 64:ff9b::7f00:1 64:ff9b:1::a00:1 2002:7f00:1::1 2002:c0a8:101::1 2001:0:1:1:0:0:f5ff:fffe 2001:db8::1",
            ),
            (
                Reach::Never,
                "0.0.0.0 0.1.2.3 169.254.169.254 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255 100.100.100.200 192.0.0.192 :: fe80::1 fec0::1 ff02::1 fd00:ec2::254 ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe::1 100::1 4000::1 ::ffff:0:169.254.169.254",
            ),
        ];
        for (expect, addresses) in cases {
            for address in addresses.split(' ') {
                assert_eq!(reach(address.parse().unwrap()), expect, "{address}");
            }
        }
    }
}
