//! Which provider is meant: selection strings, settings as meant, and building.
//!
//! Keys come in as values and the environment is not read here: the caller knows where a key
//! came from and says so to the person.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use crate::adapters::{Anthropic, Chat, Gemini, Responses};
use crate::cassette::CassetteFault;
use crate::cassette::replay::Replay;
use crate::chat::request::Dialect;
use crate::http::{Endpoint as HttpEndpoint, Http, Limits, secret_header};
use crate::provider::Provider;
use crate::transcript::Wire;
use crate::usage::Price;
use crate::{anthropic, chat, gemini};

/// A model as a person selects it: `anthropic/<model>`, `openai/<model>`, `responses/<model>`
/// (OpenAI too, by its newer protocol), `gemini/<model>`, `chat/<model>` (at the configured URL)
/// or `replay:<path>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelRef {
    /// A model of Anthropic's API.
    Anthropic(String),
    /// A model of OpenAI's API.
    OpenAi(String),
    /// A model of OpenAI's API, over the Responses protocol.
    Responses(String),
    /// A model of Google's Gemini API.
    Gemini(String),
    /// A model of the configured OpenAI-compatible server.
    Chat(String),
    /// A cassette.
    Replay(PathBuf),
}

impl ModelRef {
    /// The model's name at its provider; for a cassette, `replay`.
    #[must_use]
    pub fn model(&self) -> &str {
        match self {
            Self::Anthropic(model)
            | Self::OpenAi(model)
            | Self::Responses(model)
            | Self::Gemini(model)
            | Self::Chat(model) => model,
            Self::Replay(_) => "replay",
        }
    }
}

impl FromStr for ModelRef {
    type Err = ConfigError;
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let unknown = || ConfigError::UnknownModel { given: text.chars().take(200).collect() };
        if let Some(path) = text.strip_prefix("replay:") {
            return if path.is_empty() { Err(unknown()) } else { Ok(Self::Replay(PathBuf::from(path))) };
        }
        match text.split_once('/') {
            Some((_, "")) => Err(unknown()),
            Some(("anthropic", model)) => Ok(Self::Anthropic(model.to_owned())),
            Some(("openai", model)) => Ok(Self::OpenAi(model.to_owned())),
            Some(("responses", model)) => Ok(Self::Responses(model.to_owned())),
            Some(("gemini", model)) => Ok(Self::Gemini(model.to_owned())),
            Some(("chat", model)) => Ok(Self::Chat(model.to_owned())),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anthropic(model) => write!(f, "anthropic/{model}"),
            Self::OpenAi(model) => write!(f, "openai/{model}"),
            Self::Responses(model) => write!(f, "responses/{model}"),
            Self::Gemini(model) => write!(f, "gemini/{model}"),
            Self::Chat(model) => write!(f, "chat/{model}"),
            Self::Replay(path) => write!(f, "replay:{}", path.display()),
        }
    }
}

/// A key. It is never printed and never serialised.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a key; white space around it is dropped, as a file's last newline would be.
    #[must_use]
    pub fn new(key: &str) -> Self {
        Self(key.trim().to_owned())
    }
    fn expose(&self) -> &str {
        &self.0
    }
}
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A provider as meant.
#[derive(Debug, Clone)]
pub struct ProviderConfig {
    /// Which one, and where.
    pub endpoint: Endpoint,
    /// Limits of one call.
    pub limits: Limits,
    /// The price of every model there, instead of the table's; [`Price::FREE`] for one's own machine.
    pub price: Option<Price>,
    /// A proxy for all requests, such as `http://proxy:3128`.
    pub proxy: Option<String>,
}

impl ProviderConfig {
    /// A configuration with the endpoint's usual limits, prices from the table, and no proxy.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        let limits = match &endpoint {
            Endpoint::Anthropic { .. } | Endpoint::Replay { .. } => Limits::default(),
            // These have no pings: a model that reasons in secret, or reads its prompt on a small
            // machine, says nothing for minutes.
            Endpoint::OpenAi { .. } | Endpoint::Responses { .. } | Endpoint::Gemini { .. } | Endpoint::Chat { .. } => {
                Limits { first_byte_ms: 600_000, idle_ms: 300_000, ..Limits::default() }
            }
        };
        Self { endpoint, limits, price: None, proxy: None }
    }
}

/// Which provider, and where.
#[derive(Debug, Clone)]
pub enum Endpoint {
    /// Anthropic Messages.
    Anthropic {
        /// Instead of `https://api.anthropic.com`; without `/v1`.
        base_url: Option<String>,
        /// The key; may be missing only if `base_url` is given.
        key: Option<Secret>,
        /// Send the key as `Authorization: Bearer` instead of `x-api-key`.
        bearer: bool,
    },
    /// OpenAI.
    OpenAi {
        /// Instead of `https://api.openai.com/v1`.
        base_url: Option<String>,
        /// The key; may be missing only if `base_url` is given.
        key: Option<Secret>,
    },
    /// OpenAI, or another server, over the Responses protocol.
    Responses {
        /// Instead of `https://api.openai.com/v1`; `/v1` is added where there is no path. Models of
        /// another server have no price unless the configuration gives one.
        base_url: Option<String>,
        /// The key; may be missing only if `base_url` is given.
        key: Option<Secret>,
    },
    /// Google's Gemini API.
    Gemini {
        /// Instead of `https://generativelanguage.googleapis.com`; without `/v1beta`.
        base_url: Option<String>,
        /// The key; may be missing only if `base_url` is given.
        key: Option<Secret>,
    },
    /// Any OpenAI-compatible server. Its models have no price unless the configuration gives one.
    Chat {
        /// With its path, usually `/v1`, which is added where there is no path.
        base_url: String,
        /// The key, if the server wants one.
        key: Option<Secret>,
    },
    /// A cassette.
    Replay {
        /// The file.
        path: PathBuf,
    },
}

/// Why no provider could be built.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The selection names no model.
    #[error(
        "`{given}` names no model; write anthropic/<model>, openai/<model>, responses/<model>, gemini/<model>, chat/<model> (any OpenAI-compatible server, with its URL configured) or replay:<file>"
    )]
    UnknownModel {
        /// What was given.
        given: String,
    },
    /// A key is needed.
    #[error("{provider} needs a key and none was given")]
    NeedsKey {
        /// The provider.
        provider: &'static str,
    },
    /// The key cannot be a key.
    #[error("the key for {provider} is empty or has characters that no key has")]
    BadKey {
        /// The provider.
        provider: &'static str,
    },
    /// The URL cannot be used.
    #[error("`{url}` cannot be a provider's URL: {why}")]
    BadUrl {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The HTTP client cannot be made: the proxy's URL, or the system's certificates.
    #[error("the HTTP client for {provider} cannot be made; check the proxy and the system's certificates")]
    Client {
        /// The provider.
        provider: &'static str,
        /// Why.
        source: reqwest::Error,
    },
    /// The cassette cannot be played.
    #[error(transparent)]
    Cassette(#[from] CassetteFault),
}

/// Sets the process's TLS implementation. Call once at the start of `main`; a second call does
/// nothing.
pub fn install_crypto() {
    // An error means that one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Makes a provider. Do it once and keep it: for an `https` URL this loads the system's certificates.
///
/// # Errors
/// [`ConfigError`].
pub fn build(config: ProviderConfig) -> Result<Arc<dyn Provider>, ConfigError> {
    let ProviderConfig { endpoint, limits, price, proxy } = config;
    let common = Common { limits, proxy };
    match endpoint {
        Endpoint::Replay { path } => Ok(Arc::new(Replay::open(&path)?)),
        Endpoint::Anthropic { base_url, key, bearer } => {
            let provider = "anthropic";
            need_key(provider, key.as_ref(), base_url.as_ref())?;
            let base = base_url.as_deref().unwrap_or(anthropic::BASE_URL);
            let base = base.trim_end_matches('/');
            let url = url(base.strip_suffix("/v1").unwrap_or(base), "", "/v1/messages")?;
            let mut headers = HeaderMap::from_iter([(
                HeaderName::from_static("anthropic-version"),
                HeaderValue::from_static(anthropic::VERSION),
            )]);
            if let Some(key) = &key {
                let name = if bearer { AUTHORIZATION } else { HeaderName::from_static("x-api-key") };
                put_key(&mut headers, name, key, provider)?;
            }
            let http = common.http(Wire::AnthropicMessages, provider, url, headers)?;
            Ok(Arc::new(Anthropic { http, price }))
        }
        Endpoint::OpenAi { base_url, key } => {
            let provider = "openai";
            need_key(provider, key.as_ref(), base_url.as_ref())?;
            let http =
                common.chat(provider, provider, base_url.as_deref().unwrap_or(chat::OPENAI_BASE_URL), key.as_ref())?;
            Ok(Arc::new(Chat { http, price, vendor: Some(provider), dialect: Dialect::OpenAi }))
        }
        Endpoint::Responses { base_url, key } => {
            let provider = "openai";
            need_key(provider, key.as_ref(), base_url.as_ref())?;
            let (name, vendor) = match &base_url {
                Some(base_url) => (name_at("responses", base_url)?, None),
                None => (provider.to_owned(), Some(provider)),
            };
            let mut headers = HeaderMap::new();
            if let Some(key) = &key {
                put_key(&mut headers, AUTHORIZATION, key, provider)?;
            }
            let url = url(base_url.as_deref().unwrap_or(chat::OPENAI_BASE_URL), "/v1", "/responses")?;
            Ok(Arc::new(Responses { http: common.http(Wire::Responses, &name, url, headers)?, price, vendor }))
        }
        Endpoint::Gemini { base_url, key } => {
            let provider = "gemini";
            need_key(provider, key.as_ref(), base_url.as_ref())?;
            let base = base_url.as_deref().unwrap_or(gemini::BASE_URL).trim_end_matches('/');
            let url = url(base.strip_suffix("/v1beta").unwrap_or(base), "", "/v1beta/models")?;
            let mut headers = HeaderMap::new();
            if let Some(key) = &key {
                put_key(&mut headers, HeaderName::from_static("x-goog-api-key"), key, provider)?;
            }
            Ok(Arc::new(Gemini { http: common.http(Wire::Gemini, provider, url, headers)?, price }))
        }
        Endpoint::Chat { base_url, key } => {
            let name = name_at("chat", &base_url)?;
            let http = common.chat("chat", &name, &base_url, key.as_ref())?;
            Ok(Arc::new(Chat { http, price, vendor: None, dialect: Dialect::Common }))
        }
    }
}

/// The name of a server that only its address tells from others: `chat@host:port`.
fn name_at(kind: &str, base_url: &str) -> Result<String, ConfigError> {
    let at = url(base_url, "/v1", "")?;
    let port = at.port().map(|port| format!(":{port}")).unwrap_or_default();
    Ok(format!("{kind}@{}{port}", at.host_str().unwrap_or_default()))
}

/// What every HTTP provider is built with.
struct Common {
    limits: Limits,
    proxy: Option<String>,
}

impl Common {
    fn http(self, wire: Wire, name: &str, url: reqwest::Url, mut headers: HeaderMap) -> Result<Arc<Http>, ConfigError> {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let provider = match wire {
            Wire::AnthropicMessages => "anthropic",
            Wire::Responses => "the responses server",
            Wire::Gemini => "gemini",
            Wire::ChatCompletions | Wire::Cassette => "the chat server",
        };
        let endpoint =
            HttpEndpoint { name: name.to_owned(), wire, url, headers, limits: self.limits, proxy: self.proxy };
        Http::new(endpoint).map_err(|source| ConfigError::Client { provider, source })
    }

    fn chat(
        self,
        provider: &'static str,
        name: &str,
        base_url: &str,
        key: Option<&Secret>,
    ) -> Result<Arc<Http>, ConfigError> {
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            put_key(&mut headers, AUTHORIZATION, key, provider)?;
        }
        self.http(Wire::ChatCompletions, name, url(base_url, "/v1", "/chat/completions")?, headers)
    }
}

fn need_key(provider: &'static str, key: Option<&Secret>, base_url: Option<&String>) -> Result<(), ConfigError> {
    if key.is_none() && base_url.is_none() { Err(ConfigError::NeedsKey { provider }) } else { Ok(()) }
}

fn put_key(headers: &mut HeaderMap, name: HeaderName, key: &Secret, provider: &'static str) -> Result<(), ConfigError> {
    if key.expose().is_empty() {
        return Err(ConfigError::BadKey { provider });
    }
    let value = if name == AUTHORIZATION { format!("Bearer {}", key.expose()) } else { key.expose().to_owned() };
    secret_header(headers, name, &value).map_err(|_| ConfigError::BadKey { provider })
}

/// `base`, with `default_path` if it has no path of its own, and `suffix`.
fn url(base: &str, default_path: &str, suffix: &str) -> Result<reqwest::Url, ConfigError> {
    let bad = |why: &str| ConfigError::BadUrl { url: base.chars().take(200).collect(), why: why.to_owned() };
    let mut url =
        reqwest::Url::parse(base.trim()).map_err(|why| bad(&format!("{why}; write it as http://host:port/v1")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("it must begin with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // The text is not repeated, because it holds a password.
        return Err(ConfigError::BadUrl {
            url: url.host_str().unwrap_or_default().to_owned(),
            why: "give the key as a key, not inside the URL".to_owned(),
        });
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("it must end with its path, without `?` or `#`"));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    let path = if path.is_empty() { default_path } else { &path };
    url.set_path(&format!("{path}{suffix}"));
    Ok(url)
}
