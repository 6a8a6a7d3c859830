//! From what a recipe lists, what the server permits and which secrets there are to the allow-list
//! of a door. Pure.
//!
//! A repository can only ask: groups of hosts get their hosts from the server's settings, private
//! addresses are the server's to open, a secret is added only where its own binding says so, and the
//! server's list is a ceiling over everything. Absent: opening doors (`doors`).

use std::collections::BTreeMap;

use egress::{AllowEntry, AllowList, Scheme, SecretAs};
use sandbox::environment::{Allow, Host};
use store::secrets::{AddedAs, SecretLine};

/// What the server says about the network of boxes.
#[derive(Debug, Clone, Default)]
pub struct NetworkSettings {
    /// The hosts of groups such as `cargo` or `npm`, by name.
    pub groups: BTreeMap<String, Vec<String>>,
    /// Hosts that may have addresses which are not public, exact or as `*.suffix`.
    pub private_hosts: Vec<String>,
    /// Hosts that are spoken to without TLS, exact or as `*.suffix`; port 80 alone always is.
    pub plain_http_hosts: Vec<String>,
    /// What boxes may reach at most; nothing means that repositories decide alone.
    pub ceiling: Option<AllowList>,
}

/// Groups whose hosts the settings list.
const GROUPS: [&str; 3] = ["cargo", "npm", "pip"];

impl NetworkSettings {
    /// What boxes may reach at most. What is private or without TLS is settled where hosts are listed
    /// for a box, so a ceiling is no obstacle to either.
    ///
    /// # Errors
    /// What is wrong with an entry.
    pub fn ceiling(entries: &[AllowEntry]) -> Result<AllowList, String> {
        let both = entries.iter().flat_map(|entry| {
            [Scheme::Https, Scheme::Http].map(|scheme| AllowEntry { private: true, scheme, ..entry.clone() })
        });
        AllowList::new(both.collect()).map_err(|error| error.to_string())
    }
}

/// Looks for mistakes in what a recipe lists.
///
/// # Errors
/// The first mistake, for a person.
pub fn check(wanted: &[Allow], settings: &NetworkSettings) -> Result<(), String> {
    list(wanted, &[], settings).map(drop)
}

/// The list for a box, and remarks for people about what was left out of it.
pub(crate) struct Listed {
    pub(crate) list: AllowList,
    pub(crate) notes: Vec<String>,
}

/// Makes the list. `secrets` are those in the box's scope.
pub(crate) fn list(wanted: &[Allow], secrets: &[SecretLine], settings: &NetworkSettings) -> Result<Listed, String> {
    let mut entries = Vec::new();
    let mut notes = Vec::new();
    for allow in wanted {
        match allow {
            Allow::Group(name) => entries.extend(group(name, settings)?),
            Allow::Host(host) => entries.extend(with_secret(host, secrets, settings, &mut notes)),
        }
    }
    let list = AllowList::new(entries).map_err(|error| error.to_string())?;
    let list = match &settings.ceiling {
        Some(ceiling) => list.within(ceiling),
        None => list,
    };
    Ok(Listed { list, notes })
}

/// The entries of a group: where some of its hosts may have private addresses, only these may.
fn group(name: &str, settings: &NetworkSettings) -> Result<Vec<AllowEntry>, String> {
    let entry = AllowEntry { group: Some(name.to_owned()), ..AllowEntry::default() };
    if let Some(rest) = name.strip_prefix("git:") {
        let host = rest.split('/').next().unwrap_or_default();
        let host = host.split(':').next().unwrap_or_default();
        return Ok(vec![AllowEntry { private: is_private(host, settings), ..entry }]);
    }
    if !GROUPS.contains(&name) {
        return Err(format!(
            "there is no network group `{name}`; there are {} and git:HOST/OWNER/REPO, and a host is written with its dots",
            GROUPS.join(", ")
        ));
    }
    let Some(hosts) = settings.groups.get(name) else {
        return Err(format!(
            "the network group `{name}` has no hosts on this server; list them in the settings under [network.groups], for example {name} = [\"packages.example\"]"
        ));
    };
    let kind = |host: &str| (is_private(host, settings), is_one_of(&settings.plain_http_hosts, host));
    let mut kinds: BTreeMap<(bool, bool), Vec<String>> = BTreeMap::new();
    for host in hosts {
        kinds.entry(kind(host)).or_default().push(host.clone());
    }
    let of = |((private, plain), hosts)| AllowEntry { hosts, private, scheme: scheme(plain), ..entry.clone() };
    Ok(kinds.into_iter().map(of).collect())
}

const fn scheme(plain: bool) -> Scheme {
    if plain { Scheme::Http } else { Scheme::Https }
}

fn plain(host: &Host, settings: &NetworkSettings) -> AllowEntry {
    AllowEntry {
        host: Some(host.host.clone()),
        scheme: scheme(host.ports == [80] || is_one_of(&settings.plain_http_hosts, &host.host)),
        ports: host.ports.clone(),
        methods: host.methods.clone(),
        paths: host.paths.clone(),
        private: is_private(&host.host, settings),
        ..AllowEntry::default()
    }
}

/// A host with a secret becomes one entry for each host that the secret is bound to, before the entry
/// without it: a wildcard in a repository's file never widens where a secret goes.
fn with_secret(
    host: &Host,
    secrets: &[SecretLine],
    settings: &NetworkSettings,
    notes: &mut Vec<String>,
) -> Vec<AllowEntry> {
    let entry = plain(host, settings);
    let Some(wish) = &host.secret else { return vec![entry] };
    let Some(line) = secrets.iter().find(|line| line.name.as_str() == wish.name) else {
        notes.push(format!(
            "the secret {} is not set for this repository; {} is reached without it",
            wish.name, host.host
        ));
        return vec![entry];
    };
    let bound: Vec<AllowEntry> = line
        .hosts
        .iter()
        .filter(|bound| matches_host(&host.host, bound.host()))
        .filter(|bound| host.ports.is_empty() || host.ports.contains(&bound.port()))
        .map(|bound| AllowEntry {
            host: Some(bound.host().to_owned()),
            ports: vec![bound.port()],
            secret: Some(wish.name.clone()),
            secret_as: Some(match &line.added_as {
                AddedAs::Bearer => SecretAs::Bearer,
                AddedAs::Basic { user } => SecretAs::Basic(user.clone()),
                AddedAs::Header { name } => SecretAs::Header(name.clone()),
            }),
            ..entry.clone()
        })
        .collect();
    if bound.is_empty() {
        notes.push(format!(
            "the secret {} is not bound to {}; it is reached without it (`chargehand secret list` shows the bindings)",
            wish.name, host.host
        ));
        return vec![entry];
    }
    // A wildcard's other hosts stay reachable, without the secret.
    let rest = host.host.starts_with("*.").then_some(entry);
    bound.into_iter().chain(rest).collect()
}

fn is_private(host: &str, settings: &NetworkSettings) -> bool {
    is_one_of(&settings.private_hosts, host)
}

fn is_one_of(patterns: &[String], host: &str) -> bool {
    patterns.iter().any(|pattern| matches_host(pattern, host))
}

/// Whether `pattern` (exact, or `*.suffix`) covers `host`.
fn matches_host(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        None => pattern.eq_ignore_ascii_case(host),
        Some(suffix) => {
            let (suffix, host) = (suffix.to_ascii_lowercase(), host.to_ascii_lowercase());
            host == format!("*.{suffix}")
                || host.strip_suffix(&suffix).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use sandbox::environment::SecretUse;
    use store::secrets::{Key, SecretHost, SecretName, SecretScope};

    use super::*;

    fn secret(name: &str, hosts: &[&str]) -> SecretLine {
        SecretLine {
            name: SecretName::parse(name).unwrap(),
            scope: SecretScope::Server,
            hosts: hosts.iter().map(|host| SecretHost::parse(host).unwrap()).collect(),
            added_as: AddedAs::Bearer,
            key_id: Key::new([7; 32]).id().clone(),
            revision: 1,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn host(name: &str, secret: Option<&str>) -> Allow {
        let secret = secret.map(|name| SecretUse { name: name.into(), how: "bearer".into() });
        Allow::Host(Host { secret, ..Host::named(name) })
    }

    #[test]
    fn a_secret_goes_only_where_it_is_bound_whatever_the_repository_writes() {
        let secrets = [secret("TOKEN", &["api.acme.example", "other.example"])];
        let settings = NetworkSettings::default();
        let listed = list(&[host("*.acme.example", Some("TOKEN"))], &secrets, &settings).unwrap();
        let entries: Vec<_> =
            listed.list.entries().iter().map(|e| (e.host.clone().unwrap(), e.secret.clone())).collect();
        assert_eq!(entries, [("api.acme.example".into(), Some("TOKEN".into())), ("*.acme.example".into(), None)]);

        let listed = list(&[host("evil.example", Some("TOKEN"))], &secrets, &settings).unwrap();
        assert_eq!(listed.list.secret_names().count(), 0);
        assert!(listed.notes[0].contains("not bound to evil.example"), "{:?}", listed.notes);
        let listed = list(&[host("evil.example", Some("NONE"))], &secrets, &settings).unwrap();
        assert!(listed.notes[0].contains("not set"), "{:?}", listed.notes);
    }

    #[test]
    fn a_group_without_hosts_on_this_server_is_an_error_that_names_the_setting() {
        let Err(error) = list(&[Allow::Group("cargo".into())], &[], &NetworkSettings::default()) else {
            panic!("it was taken")
        };
        assert!(error.contains("[network.groups]"), "{error}");
    }

    #[test]
    fn private_addresses_are_the_servers_to_open() {
        let settings = NetworkSettings { private_hosts: vec!["*.corp.example".into()], ..NetworkSettings::default() };
        let private = |name: &str| list(&[host(name, None)], &[], &settings).unwrap().list.entries()[0].private;
        assert!(private("git.corp.example"));
        assert!(!private("corp.example.evil.example") && !private("xcorp.example"));

        // Within a group too, and for the host of a repository.
        let hosts = vec!["npm.corp.example".to_owned(), "npm.public.example".to_owned()];
        let settings = NetworkSettings { groups: [("npm".to_owned(), hosts)].into(), ..settings };
        let listed =
            list(&[Allow::Group("npm".into()), Allow::Group("git:git.corp.example/a/b".into())], &[], &settings);
        let entries = listed.unwrap().list;
        let private: Vec<(Vec<String>, bool)> =
            entries.entries().iter().map(|e| (e.hosts.clone(), e.private)).collect();
        let expected =
            [(vec!["npm.public.example".into()], false), (vec!["npm.corp.example".into()], true), (vec![], true)];
        assert_eq!(private, expected);
    }
}
