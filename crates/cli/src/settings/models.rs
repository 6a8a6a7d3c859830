//! From a selection such as `anthropic/claude-…` and the settings to a provider that can be built.
//!
//! Absent: building it, and talking to it; that is `model`.

use model::{Endpoint, Price, ProviderConfig, Rates};

use super::file::PriceFile;
use super::{NO_MODEL, ProviderKind, ProviderSettings, Secret, Settings, micro_usd};

/// A model that a task may use.
#[derive(Debug, Clone)]
pub struct Selected {
    /// The selection in full, as it is recorded.
    pub selection: String,
    /// The provider, to be built.
    pub config: ProviderConfig,
    /// The model's name at the provider.
    pub model: String,
}

impl Settings {
    /// What a task's model means here; `None` asks for the default.
    ///
    /// # Errors
    /// A text for the user that says what to configure or to write instead.
    pub fn select_model(&self, selection: Option<&str>) -> Result<Selected, String> {
        let selection = selection.or(self.model.as_deref()).ok_or_else(|| self.no_default_model())?;
        if let Some(path) = selection.strip_prefix("replay:").filter(|path| !path.is_empty()) {
            let config = ProviderConfig::new(Endpoint::Replay { path: path.into() });
            return Ok(Selected { selection: selection.to_owned(), config, model: "replay".to_owned() });
        }
        let Some((name, model)) = selection.split_once('/').filter(|(_, model)| !model.is_empty()) else {
            let mut usable = self.providers.iter().filter(|provider| provider.is_usable());
            let example = match (usable.next(), usable.next(), &self.model) {
                (Some(only), None, _) => format!("{}/{}", only.name, selection.trim_matches('/')),
                (_, _, Some(model)) => model.clone(),
                _ => super::providers::DEFAULT_ANTHROPIC_MODEL.to_owned(),
            };
            return Err(format!("`{selection}` names no provider; write provider/model, for example {example}"));
        };
        let provider = self.provider_named(name).ok_or_else(|| self.unknown_provider(name))?;
        if !provider.is_usable() {
            return Err(format!("the provider `{name}` has no key: {}", provider.key_advice()));
        }
        Ok(Selected { selection: selection.to_owned(), config: provider.config(model), model: model.to_owned() })
    }

    /// The provider of that name; `chat` is also the one OpenAI-compatible server that is not `OpenAI`.
    fn provider_named(&self, name: &str) -> Option<&ProviderSettings> {
        let others = || {
            self.providers.iter().filter(|provider| {
                provider.kind == ProviderKind::Chat && provider.base_url != provider.kind.default_base_url()
            })
        };
        self.providers
            .iter()
            .find(|provider| provider.name == name)
            .or_else(|| others().next().filter(|_| name == "chat"))
    }

    fn unknown_provider(&self, name: &str) -> String {
        match name {
            "anthropic" | "openai" | "gemini" => {
                format!(
                    "the provider `{name}` has no key: set {}_API_KEY for the server, or `api_key_env` in {}",
                    name.to_uppercase(),
                    self.config_file.path.display()
                )
            }
            _ => {
                let known: Vec<_> = self.providers.iter().map(|provider| provider.name.as_str()).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                format!(
                    "no provider `{name}` is configured (configured: {known}); add [providers.{name}] with `kind` and `base_url` to {}",
                    self.config_file.path.display()
                )
            }
        }
    }

    /// There is no default: either there is no provider at all, or only ones whose models we can't know.
    fn no_default_model(&self) -> String {
        match self.providers.iter().find(|provider| provider.is_usable()) {
            Some(provider) => format!(
                "no model is chosen: `{name}` is configured, so name one of its models with --model {name}/NAME, or set `model` in {file} or CHARGEHAND_MODEL",
                name = provider.name,
                file = self.config_file.path.display()
            ),
            None => NO_MODEL.to_owned(),
        }
    }
}

impl ProviderSettings {
    /// What to do about a missing key.
    #[must_use]
    pub fn key_advice(&self) -> String {
        match &self.key_source {
            super::KeySource::EnvUnset(variable) => {
                format!("the settings file says that it is in {variable}, which is not set")
            }
            _ => format!("put `api_key_env` or `api_key` under [providers.{}] in the settings file", self.name),
        }
    }

    /// The provider as `model` wants it, with the price of this model.
    #[must_use]
    pub fn config(&self, model: &str) -> ProviderConfig {
        let key = self.key.as_ref().map(|key: &Secret| model::Secret::new(key.expose()));
        let elsewhere = (self.base_url != self.kind.default_base_url()).then(|| self.base_url.clone());
        let endpoint = match (self.kind, elsewhere) {
            (ProviderKind::Anthropic, base_url) => Endpoint::Anthropic { base_url, key, bearer: false },
            (ProviderKind::Responses, base_url) => Endpoint::Responses { base_url, key },
            (ProviderKind::Gemini, base_url) => Endpoint::Gemini { base_url, key },
            (ProviderKind::Chat, None) => Endpoint::OpenAi { base_url: None, key },
            (ProviderKind::Chat, Some(base_url)) => Endpoint::Chat { base_url, key },
        };
        let price = if self.free { Some(Price::FREE) } else { self.prices.get(model).and_then(|price| price.rates()) };
        ProviderConfig { price, ..ProviderConfig::new(endpoint) }
    }
}

impl PriceFile {
    fn rates(self) -> Option<Price> {
        let rates = Rates {
            input: micro_usd(self.input).ok()?,
            cache_read: micro_usd(self.cache_read.unwrap_or(self.input)).ok()?,
            cache_write: micro_usd(self.cache_write.unwrap_or(self.input)).ok()?,
            output: micro_usd(self.output).ok()?,
        };
        Some(Price { rates, long_prompt: None })
    }
}
