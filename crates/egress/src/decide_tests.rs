//! What a list lets pass, and the reason it gives for the rest.

use proptest::prelude::*;

use super::*;
use crate::list::AllowEntry;

fn list(entries: &[&str]) -> AllowList {
    AllowList::new(entries.iter().map(|text| toml::from_str::<AllowEntry>(text).unwrap()).collect()).unwrap()
}

/// Decides on `METHOD address`.
fn ask(list: &AllowList, request: &str) -> Result<Grant, Denial> {
    let (method, address) = request.split_once(' ').unwrap();
    let (scheme, rest) = match address.strip_prefix("https://") {
        Some(rest) => (Scheme::Https, rest),
        None => (Scheme::Http, address.strip_prefix("http://").unwrap()),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap());
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let target = crate::target::Authority::parse(authority).unwrap().or_port(scheme.default_port());
    let path = CleanPath::parse(path, query).unwrap();
    list.request(Asked { scheme, target: &target, method: &method.parse().unwrap(), path: &path })
}

fn code(list: &AllowList, request: &str) -> String {
    match ask(list, request) {
        Ok(grant) => format!("{}:{}", grant.scheme.as_str(), grant.port),
        Err(denial) => denial.code().to_owned(),
    }
}

fn tunnel(list: &AllowList, target: &str) -> String {
    match list.tunnel(&Target::parse(target).unwrap()) {
        Ok(Tunnel::Blind { tls: true, .. }) => "blind".into(),
        Ok(Tunnel::Blind { tls: false, .. }) => "any".into(),
        Ok(Tunnel::Opened) => "opened".into(),
        Err(denial) => denial.code().into(),
    }
}

#[test]
fn an_empty_list_lets_nothing_pass() {
    assert_eq!(code(&AllowList::default(), "GET https://a.b/"), "nothing_allowed");
    assert_eq!(tunnel(&AllowList::default(), "a.b:443"), "nothing_allowed");
    let under_nothing = list(&["host = \"a.b\""]).within(&AllowList::default());
    assert_eq!(code(&under_nothing, "GET https://a.b/"), "nothing_allowed");
}

#[test]
fn the_nearest_reason_is_told() {
    let list = list(&["host = \"api.example.com\"\nmethods = [\"GET\"]\npaths = [\"/v1\"]"]);
    assert_eq!(code(&list, "GET https://api.example.com/v1/x"), "https:443");
    assert_eq!(code(&list, "GET https://example.com/v1"), "host_not_listed");
    assert_eq!(code(&list, "GET https://api.example.com.evil.com/v1"), "host_not_listed");
    assert_eq!(code(&list, "GET https://xapi.example.com/v1"), "host_not_listed");
    assert_eq!(code(&list, "GET https://api.example.com:8443/v1"), "port_not_listed");
    assert_eq!(code(&list, "POST https://api.example.com/v1"), "method_not_allowed");
    assert_eq!(code(&list, "GET https://api.example.com/v2"), "path_not_allowed");
    assert_eq!(code(&list, "GET https://api.example.com/v1/../v2"), "path_not_allowed");
}

#[test]
fn plain_requests_are_upgraded_and_never_lowered() {
    let tls = list(&["host = \"a.example\"", "host = \"b.example\"\nports = [8443]"]);
    assert_eq!(code(&tls, "GET http://a.example/"), "https:443");
    assert_eq!(code(&tls, "GET http://a.example:443/"), "https:443");
    assert_eq!(code(&tls, "GET http://b.example/"), "https:8443");
    assert_eq!(code(&tls, "GET http://a.example:81/"), "port_not_listed");
    let plain = list(&["host = \"a.example\"\nscheme = \"http\""]);
    assert_eq!(code(&plain, "GET http://a.example/"), "http:80");
    assert_eq!(code(&plain, "GET https://a.example/"), "port_not_listed");
    assert_eq!(tunnel(&plain, "a.example:80"), "port_not_listed");
}

#[test]
fn other_protocols_pass_only_where_an_entry_and_each_ceiling_says_so() {
    let own = list(&["host = \"a.b\"\nscheme = \"tcp\"\nports = [22]"]);
    assert_eq!(tunnel(&own, "a.b:22"), "any");
    assert_eq!(tunnel(&own, "a.b:443"), "port_not_listed");
    assert_eq!(code(&own, "GET http://a.b:22/"), "port_not_listed");
    let ceiling = list(&["host = \"a.b\"\nports = [22]"]);
    assert_eq!(tunnel(&own.within(&ceiling), "a.b:22"), "blind");
}

#[test]
fn a_wildcard_is_for_names_below_it_alone() {
    let list = list(&["host = \"*.example.com\""]);
    assert_eq!(tunnel(&list, "a.b.example.com:443"), "blind");
    assert_eq!(tunnel(&list, "A.EXAMPLE.COM.:443"), "blind");
    for other in ["example.com:443", "xexample.com:443", "a.example.com.evil.org:443", "1.2.3.4:443"] {
        assert_eq!(tunnel(&list, other), "host_not_listed", "{other}");
    }
}

#[test]
fn addresses_pass_only_if_they_are_listed_as_such() {
    let list = list(&["host = \"192.0.2.7\"", "host = \"[2001:db8::1]\""]);
    assert_eq!(tunnel(&list, "192.0.2.7:443"), "blind");
    assert_eq!(tunnel(&list, "[2001:DB8:0::1]:443"), "blind");
    assert_eq!(tunnel(&list, "192.0.2.8:443"), "host_not_listed");
}

#[test]
fn a_host_with_rules_or_a_secret_gets_no_blind_tunnel() {
    assert_eq!(tunnel(&list(&["host = \"a.b\""]), "a.b:443"), "blind");
    assert_eq!(tunnel(&list(&["host = \"a.b\"\nsecret = \"S\""]), "a.b:443"), "opened");
    assert_eq!(tunnel(&list(&["host = \"a.b\"\npaths = [\"/x\"]"]), "a.b:443"), "opened");
    assert_eq!(tunnel(&list(&["host = \"*.b.c\"", "host = \"a.b.c\"\nsecret = \"S\""]), "a.b.c:443"), "opened");
    assert_eq!(tunnel(&list(&["group = \"npm\"\nhosts = [\"a.b\"]"]), "a.b:443"), "opened");
    let ceiling = list(&["host = \"a.b\"\nmethods = [\"GET\"]"]);
    assert_eq!(tunnel(&list(&["host = \"a.b\""]).within(&ceiling), "a.b:443"), "opened");
}

#[test]
fn a_registry_is_read_only() {
    let list = list(&["group = \"cargo\"\nhosts = [\"index.example\", \"files.example\"]"]);
    assert_eq!(code(&list, "GET https://index.example/config.json"), "https:443");
    assert_eq!(code(&list, "PUT https://index.example/api/v1/crates/new"), "method_not_allowed");
}

#[test]
fn a_repository_can_be_read_and_its_one_branch_pushed() {
    let list = list(&["group = \"git:forge.example/me/repo\"\npush = \"chargehand/1\"\nsecret = \"T\""]);
    let grant = ask(&list, "POST http://forge.example/me/repo.git/git-receive-pack").unwrap();
    assert_eq!(grant.push, ["refs/heads/chargehand/1"]);
    assert_eq!(grant.secret.unwrap().name, "T");
    assert_eq!(ask(&list, "POST http://forge.example/me/repo/git-upload-pack").unwrap().push, Vec::<String>::new());
    assert_eq!(code(&list, "POST http://forge.example/you/repo.git/git-receive-pack"), "path_not_allowed");
    assert_eq!(code(&list, "POST https://forge.example/gists"), "path_not_allowed");
}

#[test]
fn a_ceiling_only_narrows() {
    let own = list(&["host = \"a.b\"\nprivate = true\nupgrade = true", "host = \"c.d\""]);
    let ceiling = list(&["host = \"a.b\"\nmethods = [\"GET\"]\nsecret = \"SERVER\"", "host = \"e.f\""]);
    let both = own.within(&ceiling);
    let grant = ask(&both, "GET https://a.b/").unwrap();
    assert_eq!((grant.secret, grant.private, grant.upgrade), (None, false, false));
    assert_eq!(code(&both, "POST https://a.b/"), "method_not_allowed");
    assert_eq!(code(&both, "GET https://c.d/"), "host_not_listed");
    assert_eq!(code(&both, "GET https://e.f/"), "host_not_listed");
    let upgraded = list(&["host = \"a.b\""]).within(&list(&["host = \"a.b\"\nports = [8443, 443]"]));
    assert_eq!(code(&upgraded, "GET http://a.b/"), "https:443");
    let elsewhere = list(&["host = \"a.b\""]).within(&list(&["host = \"a.b\"\nports = [80]"]));
    assert_eq!(code(&elsewhere, "GET http://a.b/"), "port_not_listed");
}

fn any_entry() -> impl Strategy<Value = String> {
    let host = prop::sample::select(vec!["a.b", "c.b.d", "*.b.d", "1.2.3.4"]);
    let rest = prop::sample::select(vec![
        "",
        "methods = [\"GET\"]",
        "paths = [\"/x\"]",
        "ports = [80, 443]",
        "private = true",
    ]);
    (host, rest).prop_map(|(host, rest)| format!("host = \"{host}\"\n{rest}"))
}

proptest! {
    #[test]
    fn whatever_passes_under_a_ceiling_passes_both_alone(
        own in prop::collection::vec(any_entry(), 0..4),
        ceiling in prop::collection::vec(any_entry(), 0..4),
        request in "(GET|POST) https?://(a\\.b|c\\.b\\.d|1\\.2\\.3\\.4)(:443|:80)?/[xy]",
    ) {
        let own = list(&own.iter().map(String::as_str).collect::<Vec<_>>());
        let ceiling = list(&ceiling.iter().map(String::as_str).collect::<Vec<_>>());
        if ask(&own.clone().within(&ceiling), &request).is_ok() {
            prop_assert!(ask(&own, &request).is_ok());
            prop_assert!(ask(&ceiling, &request).is_ok());
        }
    }
}
