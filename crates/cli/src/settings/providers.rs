//! Model providers as meant: which there are, where they are, and where each key was found.
//!
//! A key is looked for in the provider's own variable, then in the variable that the settings file
//! names, then in the file. Absent: which of them a task's model is (`models`).

use std::collections::BTreeMap;

use serde::Deserialize;
pub use store::Secret;

use super::env::{self as variables, Env};
use super::file::{PriceFile, ProviderFile};

/// Model that is asked when only Anthropic's key is there.
pub(super) const DEFAULT_ANTHROPIC_MODEL: &str = "anthropic/claude-sonnet-5-5";
/// Model that is asked when only `OpenAI`'s key is there.
const DEFAULT_OPENAI_MODEL: &str = "openai/gpt-6.1-sol";

/// A key or token; trimmed, because they are pasted with line ends.
pub(super) fn pasted(text: &str) -> Secret {
    Secret::new(text.trim())
}

/// A provider's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderKind {
    /// Anthropic Messages.
    Anthropic,
    /// OpenAI-compatible Chat Completions.
    Chat,
    /// OpenAI Responses.
    Responses,
    /// Google Gemini.
    Gemini,
}

impl ProviderKind {
    /// Where it is reached when nothing else is said.
    #[must_use]
    pub const fn default_base_url(self) -> &'static str {
        match self {
            Self::Anthropic => "https://api.anthropic.com",
            Self::Chat | Self::Responses => "https://api.openai.com/v1",
            Self::Gemini => "https://generativelanguage.googleapis.com",
        }
    }
}

/// Where a provider's key was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// In this variable.
    Env(String),
    /// In the settings file.
    File,
    /// Nowhere.
    None,
    /// Nowhere, although the settings file names this variable.
    EnvUnset(String),
}

/// One model provider.
#[derive(Debug, Clone)]
pub struct ProviderSettings {
    /// Its name, the first part of `provider/model`.
    pub name: String,
    /// Its protocol.
    pub kind: ProviderKind,
    /// Where it is reached.
    pub base_url: String,
    /// Its key.
    pub key: Option<Secret>,
    /// Where the key was found.
    pub key_source: KeySource,
    /// The user's own prices by model, dollars per million tokens.
    pub prices: BTreeMap<String, PriceFile>,
    /// Whether it costs nothing.
    pub free: bool,
}

impl ProviderSettings {
    /// Whether it is on this machine or in this network, so that asking it costs and tells nothing.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let rest = self.base_url.split_once("://").map_or(self.base_url.as_str(), |(_, rest)| rest);
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = match authority.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or_default(),
            None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
        };
        match host.parse::<std::net::IpAddr>() {
            Ok(std::net::IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_unspecified(),
            Ok(std::net::IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unspecified(),
            Err(_) => host == "localhost" || host.ends_with(".localhost") || host.ends_with(".local"),
        }
    }

    /// Whether it can be asked: it has a key, or is one that needs none.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.key.is_some() || self.base_url != self.kind.default_base_url()
    }
}

/// The three providers that the environment may configure, and those of the file.
pub(super) fn gather(env: &Env, mut file: BTreeMap<String, ProviderFile>) -> Vec<ProviderSettings> {
    let known = [
        ("anthropic", ProviderKind::Anthropic, variables::ANTHROPIC_API_KEY, variables::ANTHROPIC_BASE_URL),
        ("openai", ProviderKind::Chat, variables::OPENAI_API_KEY, variables::OPENAI_BASE_URL),
        ("gemini", ProviderKind::Gemini, variables::GEMINI_API_KEY, variables::GOOGLE_GEMINI_BASE_URL),
    ];
    let mut providers = Vec::new();
    for (name, kind, key, url) in known {
        let url = env.text(url);
        let key = env.text(key).map(|text| (pasted(&text), KeySource::Env(key.name.to_owned())));
        match file.remove(name) {
            Some(written) => providers.push(provider(env, name.to_owned(), written, (key, url))),
            None if key.is_some() || url.is_some() => {
                let written = ProviderFile {
                    kind,
                    base_url: None,
                    api_key: None,
                    api_key_env: None,
                    prices: BTreeMap::new(),
                    free: false,
                };
                providers.push(provider(env, name.to_owned(), written, (key, url)));
            }
            None => {}
        }
    }
    providers.extend(file.into_iter().map(|(name, written)| provider(env, name, written, (None, None))));
    providers
}

/// One provider; `from_env` is what the environment says about this name.
fn provider(
    env: &Env,
    name: String,
    written: ProviderFile,
    from_env: (Option<(Secret, KeySource)>, Option<String>),
) -> ProviderSettings {
    let (env_key, env_url) = from_env;
    let (key, key_source) = match (env_key, written.api_key_env, written.api_key) {
        (Some((key, source)), _, _) => (Some(key), source),
        (None, Some(variable), _) => match env.named(&variable) {
            Some(text) => (Some(pasted(&text)), KeySource::Env(variable)),
            None => (None, KeySource::EnvUnset(variable)),
        },
        (None, None, Some(key)) => (Some(pasted(key.expose())), KeySource::File),
        (None, None, None) => (None, KeySource::None),
    };
    let base_url = env_url.or(written.base_url).unwrap_or_else(|| written.kind.default_base_url().to_owned());
    ProviderSettings { name, kind: written.kind, base_url, key, key_source, prices: written.prices, free: written.free }
}

/// The model of the first provider whose public address is used with a key.
pub(super) fn default_model(providers: &[ProviderSettings]) -> Option<String> {
    providers
        .iter()
        .filter(|provider| provider.key.is_some() && provider.base_url == provider.kind.default_base_url())
        .find_map(|provider| match provider.name.as_str() {
            "anthropic" => Some(DEFAULT_ANTHROPIC_MODEL.to_owned()),
            "openai" => Some(DEFAULT_OPENAI_MODEL.to_owned()),
            _ => None,
        })
}
