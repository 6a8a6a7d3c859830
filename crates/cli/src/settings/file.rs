//! The settings file as written: its fields, and errors that name the line without repeating it,
//! because a line may hold a key.
//!
//! Absent: defaults and precedence; that is `settings`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::outside::{EnvironmentsFile, NetworkFile, SandboxFile};
use super::{ProviderKind, Secret, SettingsError};

/// The whole file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    /// The model for tasks that name none.
    pub model: Option<String>,
    /// The data folder.
    pub data_dir: Option<PathBuf>,
    /// Where to listen by TCP.
    pub listen: Option<SocketAddr>,
    /// The bearer token for TCP.
    pub token: Option<Secret>,
    /// Budget of tasks whose contract says nothing of it.
    pub budget: BudgetFile,
    /// Model providers by name.
    pub providers: BTreeMap<String, ProviderFile>,
    /// What boxes may reach.
    pub network: NetworkFile,
    /// What boxes may be made of.
    pub environments: EnvironmentsFile,
    /// What boxes may use.
    pub sandbox: SandboxFile,
}

/// Section `[budget]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetFile {
    /// Dollars.
    pub usd: Option<f64>,
    /// Tokens of all classes.
    pub tokens: Option<u64>,
    /// Model calls.
    pub turns: Option<u32>,
    /// Hours of work.
    pub hours: Option<f64>,
}

/// Section `[providers.NAME]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderFile {
    /// Its protocol.
    pub kind: ProviderKind,
    /// Where it is.
    #[serde(default)]
    pub base_url: Option<String>,
    /// Its key.
    #[serde(default)]
    pub api_key: Option<Secret>,
    /// The variable that holds its key.
    #[serde(default)]
    pub api_key_env: Option<String>,
    /// Prices by model.
    #[serde(default)]
    pub prices: BTreeMap<String, PriceFile>,
    /// Whether it costs nothing, as a model on one's own machine does.
    #[serde(default)]
    pub free: bool,
}

/// Section `[providers.NAME.prices.MODEL]`: dollars per million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceFile {
    /// Fresh input.
    pub input: f64,
    /// Output.
    pub output: f64,
    /// Input read from the cache; as fresh input when left out.
    #[serde(default)]
    pub cache_read: Option<f64>,
    /// Input written to the cache; as fresh input when left out.
    #[serde(default)]
    pub cache_write: Option<f64>,
}

impl File {
    /// Whether the file holds a secret itself.
    #[must_use]
    pub fn holds_secret(&self) -> bool {
        self.token.is_some() || self.providers.values().any(|provider| provider.api_key.is_some())
    }
}

/// Reads the text of a settings file.
///
/// # Errors
/// [`SettingsError::File`], naming the line and what is wrong with it, never its text.
pub fn parse(path: &Path, text: &str) -> Result<File, SettingsError> {
    let file: File = toml::from_str(text).map_err(|error| SettingsError::File {
        path: path.to_owned(),
        line: error.span().map_or(1, |span| line_of(text, span.start)),
        why: without_values(error.message()),
    })?;
    for (name, provider) in &file.providers {
        let plain =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        let why = if !plain {
            Some("a provider's name is made of letters, digits, `-`, `_` and `.`".to_owned())
        } else if provider.api_key.is_some() && provider.api_key_env.is_some() {
            Some("give `api_key` or `api_key_env`, not both".to_owned())
        } else if provider.free && !provider.prices.is_empty() {
            Some("a provider that is `free` has no `prices`".to_owned())
        } else {
            provider.prices.iter().find(|(_, price)| !price.makes_sense()).map(|(model, _)| {
                format!("the price of `{model}` must be dollars per million tokens, from 0 to 100000")
            })
        };
        if let Some(why) = why {
            let line = text
                .lines()
                .position(|line| line.contains("[providers.") && line.contains(name))
                .map_or(1, |at| at + 1);
            return Err(SettingsError::File { path: path.to_owned(), line, why: format!("providers.{name}: {why}") });
        }
    }
    Ok(file)
}

impl PriceFile {
    fn makes_sense(self) -> bool {
        [Some(self.input), Some(self.output), self.cache_read, self.cache_write]
            .into_iter()
            .flatten()
            .all(|price| (0.0..=100_000.0).contains(&price))
    }
}

/// Number of the line that holds the byte at `offset`, from 1.
fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// Errors about values quote the value that they met; names of fields stay, values go.
fn without_values(message: &str) -> String {
    let first = message.lines().next().unwrap_or("it can't be read");
    for (before, quote) in [("string ", '"'), ("unknown variant ", '`')] {
        if let Some((head, tail)) = first.split_once(&format!("{before}{quote}")) {
            let rest = tail.split_once(quote).map_or("", |(_, rest)| rest);
            return format!("{head}{}{rest}", before.trim_end());
        }
    }
    first.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(Path::new("/c.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_field_is_refused_with_its_line() {
        let message = error("model = \"a/b\"\n\nmodell = \"x\"\n");
        assert!(message.contains("line 3") && message.contains("modell"), "{message}");
    }

    #[test]
    fn a_key_on_a_broken_line_is_not_repeated() {
        for text in [
            "[providers.a]\nkind = \"anthropic\"\napi_key = sk-very-secret\n",
            "[providers.a]\nkind = \"sk-very-secret\"\n",
            "listen = \"sk-very-secret\"\n",
            "[budget]\nturns = \"sk-very-secret\"\n",
        ] {
            let message = error(text);
            assert!(!message.contains("secret"), "{message}");
        }
    }

    #[test]
    fn two_sources_for_one_key_are_refused() {
        let message = error("[providers.a]\nkind = \"chat\"\napi_key = \"x\"\napi_key_env = \"Y\"\n");
        assert!(message.contains("not both") && message.contains("line 1"), "{message}");
    }
}
