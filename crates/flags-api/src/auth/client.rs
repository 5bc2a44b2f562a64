//! Where a request comes from.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use actix_web::{HttpRequest, http::header::HOST};

use crate::app::Settings;

/// The caller's address. Each of the `proxies` in front has appended whom it heard from to `X-Forwarded-For`, so the caller
/// stands so many places from its end; what stands before may be made up. Of an IPv6 address the network counts (/64), as one
/// customer has all of it.
pub(crate) fn client_address(request: &HttpRequest, proxies: usize) -> String {
    let peer = request.peer_addr().map(|peer| peer.ip());
    let forwarded = (proxies > 0).then(|| forwarded_for(request, proxies)).flatten();
    match forwarded.or(peer).map(|address| address.to_canonical()) {
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).to_string()
        }
        None => String::new(),
    }
}

fn forwarded_for(request: &HttpRequest, proxies: usize) -> Option<IpAddr> {
    let values = request.headers().get_all("X-Forwarded-For").map(|value| String::from_utf8_lossy(value.as_bytes()));
    let hops: Vec<_> =
        values.flat_map(|value| value.split(',').map(|hop| hop.trim().to_owned()).collect::<Vec<_>>()).collect();
    parse_hop(hops.get(hops.len().checked_sub(proxies)?)?)
}

/// An address as proxies write it: some with a port.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse().map(|socket: SocketAddr| socket.ip()).ok())
}

/// Whether the caller is on this machine and nothing stands between: a developer with a browser, to whom cookies may go
/// without TLS. A server that was told of proxies, or of a public URL elsewhere, is nobody's own.
pub(crate) fn is_plain_loopback(request: &HttpRequest, settings: &Settings) -> bool {
    let public = settings.public_url.as_deref();
    let own =
        settings.proxies == 0 && public.is_none_or(|url| url.strip_prefix("http://").is_some_and(is_loopback_host));
    let forwarded = ["Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"];
    let direct = !forwarded.iter().any(|name| request.headers().contains_key(*name));
    let near = request.peer_addr().is_some_and(|peer| peer.ip().to_canonical().is_loopback());
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    own && direct && near && is_loopback_host(host)
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

    fn address(peer: &str, forwarded: &[&'static str], proxies: usize) -> String {
        let request = TestRequest::default().peer_addr(peer.parse().unwrap());
        let request = forwarded.iter().fold(request, |r, value| r.append_header(("X-Forwarded-For", *value)));
        client_address(&request.to_http_request(), proxies)
    }

    #[test]
    fn a_caller_is_who_the_outermost_own_proxy_heard_from() {
        assert_eq!(address("9.9.9.9:1", &["1.1.1.1"], 0), "9.9.9.9", "without proxies nobody is believed");
        assert_eq!(address("10.0.0.1:1", &["6.6.6.6, 1.1.1.1"], 1), "1.1.1.1");
        assert_eq!(address("10.0.0.1:1", &["6.6.6.6, 1.1.1.1", "10.0.0.2"], 2), "1.1.1.1");
        assert_eq!(address("10.0.0.1:1", &["rubbish"], 1), "10.0.0.1");
        assert_eq!(address("10.0.0.1:1", &[], 1), "10.0.0.1");
        assert_eq!(address("10.0.0.1:1", &["1.1.1.1"], 2), "10.0.0.1", "it did not pass all of them");
        assert_eq!(address("10.0.0.1:1", &["1.1.1.1:5512"], 1), "1.1.1.1");
        assert_eq!(address("10.0.0.1:1", &["[2001:db8:1:2::5]:443"], 1), "2001:db8:1:2::");
        assert_eq!(address("10.0.0.1:1", &["[2001:db8:1:2::5]"], 1), "2001:db8:1:2::");
        assert_eq!(address("[2001:db8:1:2:3:4:5:6]:1", &[], 0), "2001:db8:1:2::");
        assert_eq!(address("[::ffff:1.2.3.4]:1", &[], 0), "1.2.3.4");
    }

    #[test]
    fn a_loopback_is_one_without_a_proxy_and_by_its_own_name() {
        let check = |peer: &str, host: &str, proxied: bool| {
            let request = TestRequest::default().peer_addr(peer.parse().unwrap()).insert_header((HOST, host));
            let request = if proxied { request.insert_header(("X-Forwarded-Proto", "https")) } else { request };
            is_plain_loopback(&request.to_http_request(), &Settings::default())
        };
        for host in ["localhost:8080", "127.0.0.1", "[::1]:8080", "app.localhost", "LOCALHOST"] {
            assert!(check("127.0.0.1:5", host, false), "{host}");
        }
        assert!(!check("127.0.0.1:5", "flags.example.com", false), "a name that somebody points here");
        assert!(!check("127.0.0.1:5", "localhost.evil.com", false));
        assert!(!check("127.0.0.1:5", "localhost", true), "a proxy on the same machine");
        assert!(!check("10.0.0.9:5", "localhost", false));
        let near = |settings: Settings| {
            let request = TestRequest::default().peer_addr("127.0.0.1:5".parse().unwrap());
            is_plain_loopback(&request.insert_header((HOST, "127.0.0.1:8080")).to_http_request(), &settings)
        };
        let public = |url: &str| Settings { public_url: Some(url.to_owned()), ..Settings::default() };
        assert!(near(public("http://localhost:8080")));
        assert!(!near(public("https://flags.example.com")), "a proxy that passes its own address on as the host");
        assert!(!near(Settings { proxies: 1, ..Settings::default() }));
    }
}
