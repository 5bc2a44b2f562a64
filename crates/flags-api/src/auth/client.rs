//! Network origin of a request.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use actix_web::{HttpRequest, http::header::HOST};

use crate::state::Settings;

/// Returns the client's IP address, for rate limits; empty if it is unknown.
///
/// Every trusted proxy appends the address of its peer to `X-Forwarded-For`. The client's address is therefore the
/// entry at position `trusted_proxies` from the end; earlier entries can be forged. An IPv6 address is truncated to its
/// /64 network, because one client usually controls the whole network.
pub(crate) fn client_address(request: &HttpRequest, trusted_proxies: usize) -> String {
    let peer = request.peer_addr().map(|peer| peer.ip());
    let forwarded = (trusted_proxies > 0).then(|| forwarded_for(request, trusted_proxies)).flatten();
    match forwarded.or(peer).map(|address| address.to_canonical()) {
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).to_string()
        }
        None => String::new(),
    }
}

fn forwarded_for(request: &HttpRequest, trusted_proxies: usize) -> Option<IpAddr> {
    let values = request.headers().get_all("X-Forwarded-For").map(|value| String::from_utf8_lossy(value.as_bytes()));
    let hops: Vec<_> =
        values.flat_map(|value| value.split(',').map(|hop| hop.trim().to_owned()).collect::<Vec<_>>()).collect();
    parse_hop(hops.get(hops.len().checked_sub(trusted_proxies)?)?)
}

/// Parses an entry of `X-Forwarded-For`, with or without a port.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse().map(|socket: SocketAddr| socket.ip()).ok())
}

/// Whether the client connects from the same machine without a proxy, as in local development. Only then may the
/// session cookie be sent without TLS.
///
/// Always false if trusted proxies are configured or if the public URL is not plain HTTP on a loopback host.
pub(crate) fn is_direct_loopback(request: &HttpRequest, settings: &Settings) -> bool {
    let public_url_is_local = match settings.public_url.as_deref() {
        None => true,
        Some(url) => url.strip_prefix("http://").is_some_and(is_loopback_host),
    };
    let is_local_setup = settings.trusted_proxies == 0 && public_url_is_local;
    let forwarded_headers = ["Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"];
    let is_direct = !forwarded_headers.iter().any(|name| request.headers().contains_key(*name));
    let peer_is_loopback = request.peer_addr().is_some_and(|peer| peer.ip().to_canonical().is_loopback());
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    is_local_setup && is_direct && peer_is_loopback && is_loopback_host(host)
}

fn is_loopback_host(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let name = name.to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn address(peer: &str, forwarded: &[&'static str], trusted_proxies: usize) -> String {
        let request = TestRequest::default().peer_addr(peer.parse().unwrap());
        let request = forwarded.iter().fold(request, |r, value| r.append_header(("X-Forwarded-For", *value)));
        client_address(&request.to_http_request(), trusted_proxies)
    }

    #[test]
    fn client_address_is_the_peer_of_the_outermost_trusted_proxy() {
        assert_eq!(address("9.9.9.9:1", &["1.1.1.1"], 0), "9.9.9.9", "without trusted proxies the header is ignored");
        assert_eq!(address("10.0.0.1:1", &["6.6.6.6, 1.1.1.1"], 1), "1.1.1.1");
        assert_eq!(address("10.0.0.1:1", &["6.6.6.6, 1.1.1.1", "10.0.0.2"], 2), "1.1.1.1");
        assert_eq!(address("10.0.0.1:1", &["not-an-address"], 1), "10.0.0.1");
        assert_eq!(address("10.0.0.1:1", &[], 1), "10.0.0.1");
        assert_eq!(address("10.0.0.1:1", &["1.1.1.1"], 2), "10.0.0.1", "fewer entries than trusted proxies");
        assert_eq!(address("10.0.0.1:1", &["1.1.1.1:5512"], 1), "1.1.1.1");
        assert_eq!(address("10.0.0.1:1", &["[2001:db8:1:2::5]:443"], 1), "2001:db8:1:2::");
        assert_eq!(address("10.0.0.1:1", &["[2001:db8:1:2::5]"], 1), "2001:db8:1:2::");
        assert_eq!(address("[2001:db8:1:2:3:4:5:6]:1", &[], 0), "2001:db8:1:2::");
        assert_eq!(address("[::ffff:1.2.3.4]:1", &[], 0), "1.2.3.4");
    }

    #[test]
    fn direct_loopback_requires_a_local_peer_a_local_host_name_and_no_proxy() {
        let check = |peer: &str, host: &str, proxied: bool| {
            let request = TestRequest::default().peer_addr(peer.parse().unwrap()).insert_header((HOST, host));
            let request = if proxied { request.insert_header(("X-Forwarded-Proto", "https")) } else { request };
            is_direct_loopback(&request.to_http_request(), &Settings::default())
        };
        for host in ["localhost:8080", "127.0.0.1", "[::1]:8080", "app.localhost", "LOCALHOST"] {
            assert!(check("127.0.0.1:5", host, false), "{host}");
        }
        assert!(!check("127.0.0.1:5", "flags.example.com", false), "a host name that resolves to this machine");
        assert!(!check("127.0.0.1:5", "localhost.evil.com", false));
        assert!(!check("127.0.0.1:5", "localhost", true), "a proxy on the same machine");
        assert!(!check("10.0.0.9:5", "localhost", false));
        let check_settings = |settings: Settings| {
            let request = TestRequest::default().peer_addr("127.0.0.1:5".parse().unwrap());
            is_direct_loopback(&request.insert_header((HOST, "127.0.0.1:8080")).to_http_request(), &settings)
        };
        let public = |url: &str| Settings { public_url: Some(url.to_owned()), ..Settings::default() };
        assert!(check_settings(public("http://localhost:8080")));
        assert!(!check_settings(public("https://flags.example.com")), "a proxy that replaces the Host header");
        assert!(!check_settings(Settings { trusted_proxies: 1, ..Settings::default() }));
    }
}
