//! Which addresses belong to the public internet, so that a provider cannot be used to reach what stands behind us.
//!
//! Everything that the IANA special-purpose registries do not call globally reachable is private here, and so are the
//! IPv6 forms that carry an IPv4 address (mapped, NAT64, 6to4, Teredo), unless what they carry is public too. Cloud
//! metadata services (169.254.169.254, fd00:ec2::254) fall under link-local and unique-local. Must never know: names
//! and resolvers. Next: `outbound/guard.rs`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Is the address reachable over the public internet?
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

/// Does the host of a URL name this machine or its network without any resolver?
pub fn is_private_host(host: &url::Host<&str>) -> bool {
    match host {
        url::Host::Ipv4(v4) => !is_public_v4(*v4),
        url::Host::Ipv6(v6) => !is_public_v6(*v6),
        url::Host::Domain(name) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let local = [".localhost", ".local", ".internal", ".localdomain"];
            name == "localhost" || local.iter().any(|end| name.ends_with(end))
        }
    }
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    !(v4.is_private()
        || v4.is_loopback()
        || v4.is_link_local()
        || v4.is_documentation()
        || v4.is_multicast()
        || v4.is_broadcast()
        || a == 0
        || (a == 100 && (64..128).contains(&b))     // shared space of carriers, RFC 6598
        || (a == 192 && b == 0 && c == 0)           // protocol assignments, RFC 6890
        || (a == 192 && b == 88 && c == 99)         // 6to4 relays, RFC 7526
        || (a == 198 && (18..20).contains(&b))      // benchmarks, RFC 2544
        || a >= 240) // reserved, RFC 1112
}

fn is_public_v6(v6: Ipv6Addr) -> bool {
    let s = v6.segments();
    let carried = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match s {
        // Mapped and NAT64 forms reach what they carry.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => is_public_v4(carried(high, low)),
        // 6to4 carries the address of its relay.
        [0x2002, high, low, ..] => is_public_v4(carried(high, low)),
        // Teredo, ORCHID, benchmarks, documentation.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Only 2000::/3 is given out as global unicast: this leaves out loopback, unique-local, link-local, multicast
        // and the local NAT64 prefix.
        _ => (0x2000..0x4000).contains(&s[0]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_public_internet_is_private() {
        let private = [
            "127.0.0.1",
            "127.255.0.9",
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "169.254.169.254",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.1",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "192.88.99.1",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::1",
            "2002:a00:1::",
            "2001::1",
            "2001:db8::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "3fff::1",
            "5f00::1",
        ];
        for text in private {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        let public = [
            "1.1.1.1",
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ];
        for text in public {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn local_names_are_private_without_asking_anybody() {
        for name in ["localhost", "LOCALHOST.", "a.localhost", "printer.local", "metadata.google.internal"] {
            assert!(is_private_host(&url::Host::Domain(name)), "{name}");
        }
        assert!(!is_private_host(&url::Host::Domain("api.example.com")));
        assert!(is_private_host(&url::Host::Ipv4("10.1.2.3".parse().unwrap())));
    }
}
