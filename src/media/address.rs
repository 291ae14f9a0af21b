//! Which network addresses a picture may be fetched from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use super::MediaLimits;

/// Why an address is not connected to.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refused(pub String);

/// Lets requests reach public addresses and the allowed networks, and nothing else.
///
/// It is the client's resolver, so the addresses it judges are the ones that are connected to: a name cannot answer
/// differently a second time. A URL with an address in it never comes to a resolver; [`AddressGuard::check_url`] judges
/// that.
#[derive(Debug, Clone)]
pub(super) struct AddressGuard {
    networks: Arc<[IpNet]>,
    /// In lower case, without dots at their ends. Empty: every name.
    domains: Arc<[String]>,
    /// Empty: the web's and those that need no privileges.
    ports: Arc<[u16]>,
    /// The host of the proxy, which whoever runs this server has chosen.
    proxy: Option<Arc<str>>,
}

impl AddressGuard {
    pub(super) fn new(limits: &MediaLimits) -> AddressGuard {
        let domains = limits.allowed_domains.iter().map(|domain| domain.trim_matches('.').to_ascii_lowercase());
        AddressGuard {
            networks: limits.allowed_networks.as_slice().into(),
            domains: domains.collect(),
            ports: limits.allowed_ports.as_slice().into(),
            proxy: limits.proxy.as_ref().and_then(Url::host_str).map(Arc::from),
        }
    }

    /// Whether a URL may be requested, as far as can be told without resolving its name. Must be asked at every hop.
    pub(super) fn check_url(&self, url: &Url) -> Result<(), Refused> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Refused(format!("pictures are not fetched by {}:, only by http(s)", url.scheme())));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused(
                "the URL has a user name or password in it, which this server does not send".to_owned(),
            ));
        }
        let port = url.port_or_known_default().unwrap_or_default();
        if !self.permits_port(port) {
            return Err(Refused(format!(
                "port {port} is not one that pictures are fetched from (--allowed-ports, SARDINE_ALLOWED_PORTS)"
            )));
        }
        // The URL parser has turned every spelling of an IPv4 address (octal, hexadecimal, one number, other digits)
        // into this form.
        match url.host() {
            Some(Host::Ipv4(address)) => self.check_address(address.into(), &address.to_string()),
            Some(Host::Ipv6(address)) => self.check_address(address.into(), &address.to_string()),
            Some(Host::Domain(name)) => self.check_domain(name),
            None => Err(Refused("the URL names no host".to_owned())),
        }
    }

    fn permits_port(&self, port: u16) -> bool {
        const UNPRIVILEGED: u16 = 1024;
        if self.ports.is_empty() {
            return matches!(port, 80 | 443) || port >= UNPRIVILEGED;
        }
        self.ports.contains(&port)
    }

    fn check_domain(&self, name: &str) -> Result<(), Refused> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let is_below = |domain: &String| {
            name.strip_suffix(domain.as_str()).is_some_and(|front| front.is_empty() || front.ends_with('.'))
        };
        if self.domains.is_empty() || self.domains.iter().any(is_below) {
            return Ok(());
        }
        Err(Refused(format!(
            "{name} is not one of the domains that pictures are fetched from (--allowed-domains, SARDINE_ALLOWED_DOMAINS)"
        )))
    }

    /// One refused answer condemns the name: connecting to "the other one" is how rebinding gets in.
    fn check_answers(&self, name: &str, answers: &[SocketAddr]) -> Result<(), Refused> {
        answers.iter().try_for_each(|answer| self.check_address(answer.ip(), name))
    }

    fn check_address(&self, address: IpAddr, name: &str) -> Result<(), Refused> {
        let address = address.to_canonical();
        if is_public(address) || self.networks.iter().any(|network| network.contains(&address)) {
            return Ok(());
        }
        Err(Refused(format!(
            "{name} is not a public address; whoever runs this server can allow its network with \
             --allowed-networks (SARDINE_ALLOWED_NETWORKS)"
        )))
    }
}

impl Resolve for AddressGuard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let answers: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if guard.proxy.as_deref() != Some(name.as_str()) {
                guard.check_answers(name.as_str(), &answers)?;
            }
            Ok(Box::new(answers.into_iter()) as Addrs)
        })
    }
}

/// Whether an address belongs to the public internet (IANA's registries of special-purpose addresses).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let special = address.is_unspecified()
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_multicast()
        || address.is_documentation();
    let reserved = match address.octets() {
        [0, ..] => true,                          // "this network"
        [100, second, ..] => second & 0xc0 == 64, // carriers' own networks, 100.64/10
        [192, 0, 0, _] => true,                   // protocol assignments
        [192, 88, 99, _] => true,                 // 6to4 relays
        [198, second, ..] => second & 0xfe == 18, // benchmarking, 198.18/15
        [first, ..] => first >= 240,
    };
    !special && !reserved
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // NAT64 carries an IPv4 address: judge that.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => is_public_v4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))),
        [0x2001, second, ..] if second < 0x200 || second == 0xdb8 => false, // Teredo, ORCHID ..., documentation
        // ISATAP carries an IPv4 address behind any prefix.
        [first, _, _, _, 0 | 0x200, 0x5efe, high, low] => {
            first & 0xe000 == 0x2000 && is_public_v4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
        }
        [0x2002, ..] => false,                            // 6to4: it tunnels to any IPv4 address
        [0x3fff, second, ..] if second < 0x1000 => false, // documentation
        [first, ..] => first & 0xe000 == 0x2000,          // global unicast
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(allowed: &[&str]) -> AddressGuard {
        let allowed_networks = allowed.iter().map(|network| network.parse().unwrap()).collect();
        AddressGuard::new(&MediaLimits { allowed_networks, ..MediaLimits::default() })
    }

    fn permits(guard: &AddressGuard, url: &str) -> bool {
        guard.check_url(&Url::parse(url).unwrap()).is_ok()
    }

    #[test]
    fn addresses_that_are_not_public_are_refused_in_every_spelling() {
        let urls = "http://127.0.0.1/ http://127.1/ http://0x7f000001/ http://2130706433/ http://017700000001/ http://0.0.0.0/ \
                    http://①②⑦.⓪.⓪.①/ http://[::1]/ http://[::]/ http://[::ffff:127.0.0.1]/ http://[::ffff:7f00:1]/ \
                    http://[64:ff9b::7f00:1]/ http://[64:ff9b:1::1]/ http://[2002:7f00:1::]/ http://[2001::1]/ http://[2001:db8::1]/ \
                    http://169.254.169.254/ http://[fd00:ec2::254]/ http://[fe80::1]/ http://[ff02::1]/ http://10.0.0.1/ http://172.16.0.1/ \
                    http://192.168.1.1/ http://100.64.0.1/ http://192.0.0.1/ http://192.0.2.1/ http://198.18.0.1/ http://198.51.100.1/ \
                    http://[::127.0.0.1]/ http://[::ffff:0:127.0.0.1]/ http://[64:ff9b::a9fe:a9fe]/ http://[2001:0:1::1]/ \
                    http://[2606:4700::5efe:7f00:1]/ http://[2606:4700::200:5efe:a00:1]/ http://[fec0::1]/ http://[100::1]/ \
                    http://0x7f.1/ http://0177.1/ http://0300.0250.1/ http://%31%32%37.0.0.1/ http://127。0。0。1/ http://127.0.0.1./ \
                    http://203.0.113.1/ http://224.0.0.1/ http://240.0.0.1/ http://255.255.255.255/ http://0.1.2.3/";
        for url in urls.split_whitespace() {
            assert!(!permits(&guard(&[]), url), "{url}");
        }
    }

    #[test]
    fn public_addresses_are_permitted() {
        for url in [
            "http://93.184.216.34/",
            "https://[2606:4700::1]/",
            "http://[64:ff9b::5db8:d822]/",
            "http://100.128.0.1/",
            "http://198.20.0.1/",
        ] {
            assert!(permits(&guard(&[]), url), "{url}");
        }
    }

    #[test]
    fn an_allowed_network_is_permitted_and_its_neighbours_are_not() {
        let guard = guard(&["10.1.0.0/16", "fd00:1::/32"]);
        assert!(
            permits(&guard, "http://10.1.2.3/")
                && permits(&guard, "http://[::ffff:10.1.2.3]/")
                && permits(&guard, "http://[fd00:1::2]/")
        );
        assert!(!permits(&guard, "http://10.2.0.1/") && !permits(&guard, "http://[fd00:2::1]/"));
    }

    #[test]
    fn a_name_with_one_refused_answer_is_refused() {
        let answers: Vec<SocketAddr> = vec!["93.184.216.34:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()];
        assert!(guard(&[]).check_answers("mixed.example", &answers).is_err());
        assert!(guard(&[]).check_answers("public.example", &answers[..1]).is_ok());
    }

    #[test]
    fn only_allowed_domains_and_what_is_below_them_are_asked_for_where_there_are_any() {
        let allowed_domains = vec!["Example.com".to_owned(), ".cdn.example.org".to_owned()];
        let guard = AddressGuard::new(&MediaLimits { allowed_domains, ..MediaLimits::default() });
        for url in
            ["http://example.com/", "https://a.b.EXAMPLE.com./", "http://cdn.example.org/", "http://x.cdn.example.org/"]
        {
            assert!(permits(&guard, url), "{url}");
        }
        for url in
            ["http://badexample.com/", "http://example.com.evil.net/", "http://example.org/", "http://localhost/"]
        {
            assert!(!permits(&guard, url), "{url}");
        }
    }

    #[test]
    fn ports_of_other_services_are_refused() {
        let usual = guard(&[]);
        let chosen = AddressGuard::new(&MediaLimits { allowed_ports: vec![443], ..MediaLimits::default() });
        for (url, usually, by_choice) in [
            ("http://example.com/", true, false),
            ("https://example.com/", true, true),
            ("http://example.com:443/", true, true),
            ("http://example.com:8080/", true, false),
            ("http://example.com:22/", false, false),
            ("http://example.com:25/", false, false),
            ("https://example.com:0/", false, false),
        ] {
            assert_eq!((permits(&usual, url), permits(&chosen, url)), (usually, by_choice), "{url}");
        }
    }

    #[test]
    fn credentials_and_other_schemes_are_refused() {
        for url in
            ["http://user@example.com/", "http://user:word@example.com/", "ftp://example.com/", "file:///etc/passwd"]
        {
            assert!(!permits(&guard(&[]), url), "{url}");
        }
    }
}
