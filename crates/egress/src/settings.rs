//! What a box needs to be told so that ordinary programs find the door: variables and files. Pure.
//!
//! Nothing here is secret: the box gets the certificate of its authority, never the key, and
//! placeholders only where a caller adds them. Absent: Java, which ignores proxy variables; its
//! programs need `-Dhttp.proxyHost` and a key store of their own.

use std::net::SocketAddr;

use crate::list::{AllowList, HostPattern, Scheme};

/// What the settings are made from.
#[derive(Debug, Clone)]
pub struct BoxSettingsFor<'a> {
    /// What may leave the box.
    pub list: &'a AllowList,
    /// Where the forwarder listens inside of the box.
    pub proxy: SocketAddr,
    /// The folder inside of the box for the files: absolute, without a slash at its end.
    pub folder: &'a str,
    /// The certificate of the box's authority, if it has one.
    pub authority_pem: Option<&'a str>,
    /// The authorities that the box's programs trust anyway.
    pub system_bundle_pem: &'a str,
}

/// Variables and files for a box.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BoxSettings {
    /// Variables of every process.
    pub env: Vec<(String, String)>,
    /// Files by their absolute path inside; readable by all, written by none.
    pub files: Vec<(String, Vec<u8>)>,
}

impl BoxSettings {
    fn set(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    fn set_all(&mut self, names: &[&str], value: &str) {
        for name in names {
            self.set(name, value);
        }
    }
}

/// The settings of a box. A list that lets nothing pass gives none: there is no way out to find.
#[must_use]
pub fn box_settings(made_for: &BoxSettingsFor<'_>) -> BoxSettings {
    let mut settings = BoxSettings::default();
    if made_for.list.is_empty() {
        return settings;
    }
    let proxy = format!("http://{}", made_for.proxy);
    let names = ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];
    settings.set_all(&names, &proxy);
    settings.set_all(&["no_proxy", "NO_PROXY"], "localhost,127.0.0.1,::1");
    settings.set_all(&["CARGO_HTTP_PROXY", "PIP_PROXY", "npm_config_proxy", "npm_config_https_proxy"], &proxy);
    // node reads the variables above only if it is told to.
    settings.set("NODE_USE_ENV_PROXY", "1");
    // git is the one that knows the rewriting below; cargo's own library does not.
    settings.set("CARGO_NET_GIT_FETCH_WITH_CLI", "true");
    settings.set("GIT_TERMINAL_PROMPT", "0");
    // Questions to registries that nobody asked for.
    settings.set_all(&["npm_config_audit", "npm_config_fund", "npm_config_update_notifier"], "false");
    settings.set("PIP_DISABLE_PIP_VERSION_CHECK", "1");

    let git_config = format!("{}/gitconfig", made_for.folder);
    settings.set("GIT_CONFIG_SYSTEM", &git_config);
    settings.files.push((git_config, git_config_text(made_for.list, &proxy).into_bytes()));
    if let Some(authority) = made_for.authority_pem {
        trust(&mut settings, made_for, authority);
    }
    settings
}

/// The box's own authority beside those that it has anyway.
fn trust(settings: &mut BoxSettings, made_for: &BoxSettingsFor<'_>, authority: &str) {
    let own = format!("{}/box-ca.pem", made_for.folder);
    let bundle = format!("{}/ca-bundle.pem", made_for.folder);
    let both = format!("{}\n{}", made_for.system_bundle_pem.trim_end(), authority);
    settings.files.push((own.clone(), authority.as_bytes().to_vec()));
    settings.files.push((bundle.clone(), both.into_bytes()));
    let names = [
        "SSL_CERT_FILE",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "GIT_SSL_CAINFO",
        "CARGO_HTTP_CAINFO",
        "PIP_CERT",
        "AWS_CA_BUNDLE",
        "npm_config_cafile",
    ];
    settings.set_all(&names, &bundle);
    settings.set_all(&["NODE_EXTRA_CA_CERTS", "DENO_CERT"], &own);
}

/// git goes to the hosts of git groups in plain HTTP, which the door upgrades; so no program has to
/// trust the box's authority for that, and addresses for ssh, which can't leave, work as well.
fn git_config_text(list: &AllowList, proxy: &str) -> String {
    let mut text = format!("[include]\n\tpath = /etc/gitconfig\n[http]\n\tproxy = {proxy}\n");
    let mut done: Vec<String> = Vec::new();
    for rule in list.rules.iter().filter(|rule| rule.git.is_some() && rule.scheme == Scheme::Https) {
        for host in &rule.hosts {
            let HostPattern::Exact(host) = host else { continue };
            let host = host.to_string();
            let port = rule.ports.first().copied().filter(|port| *port != Scheme::Https.default_port());
            let authority = port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
            if done.contains(&authority) {
                continue;
            }
            text.push_str(&format!(
                "[url \"http://{authority}/\"]\n\tinsteadOf = https://{authority}/\n\tinsteadOf = ssh://git@{host}/\n\tinsteadOf = git@{host}:\n"
            ));
            done.push(authority);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::AllowEntry;

    fn list(group: &str) -> AllowList {
        AllowList::new(vec![AllowEntry { group: Some(group.to_owned()), ..AllowEntry::default() }]).unwrap()
    }

    fn settings(list: &AllowList, authority_pem: Option<&str>) -> BoxSettings {
        let proxy = "127.0.0.1:3128".parse().unwrap();
        box_settings(&BoxSettingsFor { list, proxy, folder: "/run/door", authority_pem, system_bundle_pem: "SYSTEM\n" })
    }

    #[test]
    fn programs_find_the_door_and_git_needs_no_certificate() {
        let found = settings(&list("git:forge.example/me/repo"), None);
        let get = |name: &str| found.env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        assert_eq!(get("https_proxy"), Some("http://127.0.0.1:3128"));
        assert_eq!(get("HTTP_PROXY"), Some("http://127.0.0.1:3128"));
        assert_eq!(get("SSL_CERT_FILE"), None);
        let (path, text) = &found.files[0];
        assert_eq!(path, "/run/door/gitconfig");
        let text = String::from_utf8_lossy(text);
        assert!(text.contains("[url \"http://forge.example/\"]\n\tinsteadOf = https://forge.example/\n"), "{text}");
    }

    #[test]
    fn the_boxs_authority_stands_beside_those_it_has_anyway() {
        let found = settings(&list("git:forge.example/me/repo"), Some("OWN\n"));
        let file = |name: &str| found.files.iter().find(|(path, _)| path.ends_with(name)).map(|(_, text)| text.clone());
        assert_eq!(file("ca-bundle.pem").unwrap(), b"SYSTEM\nOWN\n");
        assert_eq!(file("box-ca.pem").unwrap(), b"OWN\n");
        assert!(found.env.contains(&("GIT_SSL_CAINFO".into(), "/run/door/ca-bundle.pem".into())));
    }

    #[test]
    fn a_box_without_a_way_out_is_told_of_none() {
        assert_eq!(settings(&AllowList::default(), Some("OWN")), BoxSettings::default());
    }
}
