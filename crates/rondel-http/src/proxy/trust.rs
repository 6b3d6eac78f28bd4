//! Addresses and networks whose word counts.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// Trusted addresses. Nobody is trusted by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    all: bool,
    networks: Vec<IpNet>,
}

/// What was to be an address or a network and is neither.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotANetwork(pub String);

impl fmt::Display for NotANetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is neither an IP address nor a network", self.0)
    }
}

impl std::error::Error for NotANetwork {}

impl Trust {
    /// From addresses (`10.0.0.1`), networks (`10.0.0.0/8`, `fd00::/8`) and `*` for all.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Trust, NotANetwork> {
        let mut trust = Trust::default();
        for word in words {
            match word.trim() {
                "*" => trust.all = true,
                word => {
                    let network = IpNet::from_str(word)
                        .ok()
                        .or_else(|| IpAddr::from_str(word).ok().map(IpNet::from));
                    let network = network.ok_or_else(|| NotANetwork(word.to_owned()))?;
                    trust.networks.push(network.trunc());
                }
            }
        }
        Ok(trust)
    }

    /// An IPv4 address is the same when it comes mapped into IPv6, as on a socket of both.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.all || self.networks.iter().any(|net| net.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(words: &str) -> Trust {
        Trust::parse(words.split(' ')).expect("words")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn nobody_is_trusted_by_default() {
        assert!(!Trust::default().contains(ip("127.0.0.1")));
    }

    #[test]
    fn addresses_and_networks_are_told_apart() {
        let some = trust("127.0.0.1 10.1.2.3/8 fd00::/8");
        for inside in ["127.0.0.1", "10.200.0.1", "fd12::1", "::ffff:10.0.0.1"] {
            assert!(some.contains(ip(inside)), "{inside}");
        }
        for outside in [
            "127.0.0.2",
            "11.0.0.1",
            "fe80::1",
            "::1",
            "::ffff:127.0.0.2",
        ] {
            assert!(!some.contains(ip(outside)), "{outside}");
        }
        assert!(trust("10.0.0.1 *").contains(ip("8.8.8.8")));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for word in ["", "localhost", "10.0.0.0/33", "10.0.0", "unix:"] {
            let refused = Trust::parse([word]).expect_err(word);
            assert!(refused.to_string().contains(&format!("{word:?}")));
        }
    }
}
