//! Addresses of clients: which one a request comes from, and how much one address may have open at a time.
//!
//! What is counted here is counted before a token is seen, so it is cheap and bounded: an entry lives only as long as
//! something of its address is open. Must not decide what a user may do.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use http::{HeaderMap, HeaderName};
use parlance_proto::v1::ErrorCode;
use parlance_runtime::config::Invalid;

use crate::error::ClientError;

/// Where proxies write down whom they ask for, the nearest last.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// What trusted proxies are written as.
const ALLOWED: &str = "IP addresses and networks such as 10.0.0.0/8";

/// The address of a client as limits count it: of IPv6 the first 64 bits, because a household has all of the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddress(IpAddr);

/// The proxies whose `X-Forwarded-For` is believed.
#[derive(Debug, Clone)]
pub struct Proxies(Arc<[Network]>);

/// Addresses with the same first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u32,
}

/// How many of something each address has open. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AddressQuota(Arc<Quotas>);

#[derive(Debug)]
struct Quotas {
    most: usize,
    open: Mutex<HashMap<ClientAddress, usize>>,
}

/// One of those that an address may have open, until dropped.
#[derive(Debug)]
pub struct AddressSlot {
    quota: AddressQuota,
    address: ClientAddress,
}

/// Handshakes of each address over time.
pub struct AddressRate(DefaultKeyedRateLimiter<ClientAddress>);

/// What clients may do that have shown no token.
pub struct Addresses {
    proxies: Proxies,
    /// Socket.IO connections, whatever HTTP connections carry them.
    sessions: AddressQuota,
    handshakes: AddressRate,
}

impl ClientAddress {
    /// The address of a connection or of a header.
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            address @ IpAddr::V4(_) => address,
        })
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => address.fmt(f),
            IpAddr::V6(address) => write!(f, "{address}/64"),
        }
    }
}

impl Proxies {
    /// The networks of the setting `http.trusted_proxies`.
    ///
    /// # Errors
    /// The first that is no network.
    pub fn new(networks: &[String]) -> Result<Self, Invalid> {
        let parsed = networks.iter().map(|text| {
            Network::parse(text).ok_or_else(|| Invalid::new("http.trusted_proxies", text, ALLOWED))
        });
        parsed.collect::<Result<_, _>>().map(Self)
    }

    /// Whether this is the address of a proxy.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }

    /// Whom a request is from: the nearest address that is no trusted proxy's. `None` where a trusted proxy names
    /// nobody, or only trusted addresses: then nobody can be told apart, and nobody is counted.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Option<ClientAddress> {
        if !self.trusts(peer) {
            return Some(ClientAddress::of(peer));
        }
        let lines = headers.get_all(FORWARDED_FOR);
        let named: Vec<_> = lines
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .map(str::trim)
            .collect();
        for text in named.into_iter().rev() {
            // What cannot be read was written by nobody who is trusted.
            let address = parse_address(text)?;
            if !self.trusts(address) {
                return Some(ClientAddress::of(address));
            }
        }
        None
    }
}

/// An address as proxies write it: some add the port, and brackets around IPv6.
fn parse_address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Some(address.ip());
    }
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        (bits <= most).then_some(Self { address, bits })
    }

    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differ = u32::from(own) ^ u32::from(other);
                differ.leading_zeros() >= self.bits
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differ = u128::from(own) ^ u128::from(other);
                differ.leading_zeros() >= self.bits
            }
            _ => false,
        }
    }
}

impl Addresses {
    /// Each address that is not one of `proxies` may hold `most` Socket.IO connections, and begin `per_second`.
    pub fn new(proxies: Proxies, most: usize, per_second: NonZeroU32) -> Self {
        Self {
            proxies,
            sessions: AddressQuota::new(most),
            handshakes: AddressRate::new(per_second),
        }
    }

    /// See [`Proxies::client`].
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Option<ClientAddress> {
        self.proxies.client(peer, headers)
    }

    /// Counts a handshake.
    ///
    /// # Errors
    /// The address makes too many in a second, or has too many connections. Clients come again after either.
    pub fn admit(&self, address: ClientAddress) -> Result<AddressSlot, ClientError> {
        let refused = |limit: &'static str, message: &str| {
            metrics::counter!("chat_gateway_refused_addresses_total", "limit" => limit).increment(1);
            ClientError::new(ErrorCode::RateLimited, message)
        };
        if !self.handshakes.admits(address) {
            return Err(refused(
                "handshakes",
                "too many handshakes from this address; slow down",
            ));
        }
        let slot = self.sessions.open(address);
        slot.ok_or_else(|| refused("sessions", "too many connections from this address; close some"))
    }

    /// Forgets addresses that have made no handshake lately.
    pub fn forget_idle(&self) {
        self.handshakes.forget_idle();
    }
}

impl AddressQuota {
    /// Each address may have `most` open.
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Quotas {
            most,
            open: Mutex::default(),
        }))
    }

    /// Opens one more; `None` where the address has as many as it may.
    pub fn open(&self, address: ClientAddress) -> Option<AddressSlot> {
        let mut open = self.lock();
        let count = open.entry(address).or_default();
        if *count >= self.0.most {
            return None;
        }
        *count += 1;
        Some(AddressSlot {
            quota: self.clone(),
            address,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ClientAddress, usize>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for AddressSlot {
    fn drop(&mut self) {
        let mut open = self.quota.lock();
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

impl AddressRate {
    /// Each address may make so many in a second, and as many at once.
    pub fn new(per_second: NonZeroU32) -> Self {
        Self(RateLimiter::keyed(Quota::per_second(per_second)))
    }

    /// Counts one more. False where the address makes too many.
    pub fn admits(&self, address: ClientAddress) -> bool {
        self.0.check_key(&address).is_ok()
    }

    /// Forgets addresses that have made none lately.
    pub fn forget_idle(&self) {
        self.0.retain_recent();
        self.0.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn proxies(networks: &[&str]) -> Proxies {
        let networks: Vec<_> = networks.iter().map(|&text| text.to_owned()).collect();
        Proxies::new(&networks).unwrap()
    }

    fn forwarded(lines: &[&str]) -> HeaderMap {
        let lines = lines.iter().map(|line| (FORWARDED_FOR, line.parse().unwrap()));
        lines.collect()
    }

    #[test]
    fn networks_hold_what_has_their_first_bits() {
        let trusted = proxies(&["10.0.0.0/8", "192.0.2.7", "fd00::/8", "0.0.0.0/32"]);
        for inside in ["10.255.0.1", "192.0.2.7", "fd12::1", "::ffff:10.1.2.3"] {
            assert!(trusted.trusts(ip(inside)), "{inside}");
        }
        for outside in ["11.0.0.1", "192.0.2.8", "fe80::1", "::1", "0.0.0.1"] {
            assert!(!trusted.trusts(ip(outside)), "{outside}");
        }
        assert!(proxies(&["0.0.0.0/0"]).trusts(ip("203.0.113.9")));
        for bad in ["10.0.0.0/33", "10.0.0", "proxy", "fd00::/129", ""] {
            let error = Proxies::new(&[bad.to_owned()]).unwrap_err();
            assert_eq!(error.key, "http.trusted_proxies", "{bad}");
        }
    }

    #[test]
    fn a_client_is_the_nearest_address_that_no_trusted_proxy_has() {
        let trusted = proxies(&["10.0.0.0/8"]);
        let client = |peer: &str, lines: &[&str]| {
            let client = trusted.client(ip(peer), &forwarded(lines));
            client.map(|client| client.to_string())
        };
        let some = |text: &str| Some(text.to_owned());
        // Nobody else is believed.
        assert_eq!(client("203.0.113.9", &["198.51.100.1"]), some("203.0.113.9"));
        assert_eq!(client("10.0.0.1", &["198.51.100.1"]), some("198.51.100.1"));
        // What the client wrote itself stands further left.
        assert_eq!(
            client("10.0.0.1", &["192.0.2.1, 198.51.100.1, 10.0.0.2"]),
            some("198.51.100.1")
        );
        assert_eq!(
            client("10.0.0.1", &["192.0.2.1", "198.51.100.1:4711"]),
            some("198.51.100.1")
        );
        assert_eq!(client("10.0.0.1", &["[2001:db8::1:2:3]"]), some("2001:db8::/64"));
        for nobody in [&[][..], &["10.0.0.3"], &["unknown"]] {
            assert_eq!(client("10.0.0.1", nobody), None, "{nobody:?}");
        }
    }

    #[test]
    fn an_address_has_so_many_open_and_another_its_own() {
        let quota = AddressQuota::new(2);
        let (one, other) = (
            ClientAddress::of(ip("192.0.2.1")),
            ClientAddress::of(ip("192.0.2.2")),
        );
        let held = [quota.open(one), quota.open(one)];
        assert!(held.iter().all(Option::is_some) && quota.open(one).is_none());
        assert!(quota.open(other).is_some());
        drop(held);
        assert!(quota.lock().is_empty(), "an idle address leaves nothing");
        assert!(quota.open(one).is_some());
    }

    #[test]
    fn neighbours_in_ipv6_are_one() {
        let of = |text| ClientAddress::of(ip(text));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }

    #[test]
    fn handshakes_of_one_address_are_limited_alone() {
        let rate = AddressRate::new(NonZeroU32::new(3).unwrap());
        let (one, other) = (
            ClientAddress::of(ip("192.0.2.1")),
            ClientAddress::of(ip("192.0.2.2")),
        );
        assert!((0..3).all(|_| rate.admits(one)) && !rate.admits(one));
        assert!(rate.admits(other));
    }
}
