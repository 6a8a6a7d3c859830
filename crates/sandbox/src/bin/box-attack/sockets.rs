//! Attacks by kinds of sockets that a box has no use for. Absent: connections, see `attacks`.

use crate::attacks::{Attack, socket};

/// Families of sockets that a box does not have, by their numbers.
pub fn families() -> impl Iterator<Item = Attack> {
    let names = [
        (3, "AX.25"),
        (4, "IPX"),
        (5, "AppleTalk"),
        (9, "X.25"),
        (15, "key management"),
        (17, "packet"),
        (21, "RDS"),
        (24, "PPPoX"),
        (26, "LLC"),
        (27, "InfiniBand"),
        (28, "MPLS"),
        (29, "CAN"),
        (30, "TIPC"),
        (31, "Bluetooth"),
        (33, "RxRPC"),
        (35, "Phonet"),
        (36, "IEEE 802.15.4"),
        (37, "CAIF"),
        (38, "crypto"),
        (39, "NFC"),
        (40, "vsock"),
        (41, "KCM"),
        (42, "Qualcomm IPC"),
        (43, "SMC"),
        (44, "XDP"),
        (45, "MCTP"),
    ];
    names.into_iter().map(|(family, name)| Attack {
        kind: "sockets",
        name: format!("a socket of {name}"),
        answer: {
            let kinds = [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_RAW, libc::SOCK_SEQPACKET];
            let answers = kinds.map(|kind| socket(family, kind, 0));
            answers.into_iter().find(Result::is_ok).unwrap_or(answers[0])
        },
    })
}

/// Netlink protocols other than routes.
pub fn netlink() -> impl Iterator<Item = Attack> {
    let names = [
        (4, "socket diagnosis"),
        (5, "netfilter's log"),
        (6, "IPsec"),
        (7, "SELinux"),
        (9, "audit"),
        (12, "netfilter"),
        (15, "device events"),
        (16, "generic"),
        (20, "RDMA"),
        (21, "crypto"),
    ];
    names.into_iter().map(|(protocol, name)| Attack {
        kind: "sockets",
        name: format!("netlink of {name}"),
        answer: socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol),
    })
}
