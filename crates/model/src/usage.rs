//! What a call used and what it cost: token classes that do not overlap, and a dated price table.
//!
//! Money is whole micro-dollars. A price that is not known is `None` and never zero; a local
//! endpoint is free only when its configuration says so. Absent: currencies, discounts, and
//! service tiers that we never ask for.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// Tokens of one call by class. The classes do not overlap; `None` is what the provider did not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Input that was neither read from nor written to a cache.
    pub input_tokens: Option<u64>,
    /// Input read from the provider's prompt cache.
    pub cache_read_tokens: Option<u64>,
    /// Input written to the provider's prompt cache.
    pub cache_write_tokens: Option<u64>,
    /// Output, reasoning included.
    pub output_tokens: Option<u64>,
}

impl Usage {
    /// Everything that the model read; `None` if the provider said nothing about input.
    #[must_use]
    pub fn prompt_tokens(&self) -> Option<u64> {
        let input = self.input_tokens?;
        Some(
            input
                .saturating_add(self.cache_read_tokens.unwrap_or(0))
                .saturating_add(self.cache_write_tokens.unwrap_or(0)),
        )
    }
}

/// Micro-dollars per million tokens of each class, which is also dollars per million times 10⁶.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// Fresh input.
    pub input: u64,
    /// Input read from the cache.
    pub cache_read: u64,
    /// Input written to the cache (five minutes).
    pub cache_write: u64,
    /// Output.
    pub output: u64,
}

/// What a model costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// The rates of an ordinary call.
    pub rates: Rates,
    /// The rates of a whole call whose prompt is longer than so many tokens.
    pub long_prompt: Option<LongPrompt>,
}

/// Rates for long prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LongPrompt {
    /// They hold when the prompt (fresh, read and written) has more tokens than this.
    pub above_tokens: u64,
    /// The rates.
    pub rates: Rates,
}

impl Price {
    /// The price of what costs nothing, such as a model on one's own machine.
    pub const FREE: Self =
        Self { rates: Rates { input: 0, cache_read: 0, cache_write: 0, output: 0 }, long_prompt: None };

    /// What `usage` costs in micro-dollars, rounded up; `None` if the provider did not say how
    /// much was read or written. A free model costs nothing whatever was used.
    #[must_use]
    pub fn cost_micro_usd(&self, usage: &Usage) -> Option<u64> {
        if *self == Self::FREE {
            return Some(0);
        }
        let (prompt, output) = (usage.prompt_tokens()?, usage.output_tokens?);
        let rates = match self.long_prompt {
            Some(long) if prompt > long.above_tokens => long.rates,
            _ => self.rates,
        };
        let classes = [
            (usage.input_tokens.unwrap_or(0), rates.input),
            (usage.cache_read_tokens.unwrap_or(0), rates.cache_read),
            (usage.cache_write_tokens.unwrap_or(0), rates.cache_write),
            (output, rates.output),
        ];
        let total: u128 = classes.iter().map(|(tokens, rate)| u128::from(*tokens) * u128::from(*rate)).sum();
        Some(u64::try_from(total.div_ceil(1_000_000)).unwrap_or(u64::MAX))
    }
}

/// The embedded price table.
#[derive(Debug)]
pub struct PriceTable {
    /// The day on which the prices were collected, `YYYY-MM-DD`.
    pub as_of: String,
    rows: Vec<(String, String, Price)>,
}

static EMBEDDED: LazyLock<PriceTable> = LazyLock::new(|| {
    // A table that does not parse knows no price, and a test fails.
    PriceTable::parse(include_str!("../prices.toml")).unwrap_or(PriceTable { as_of: String::new(), rows: Vec::new() })
});

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    as_of: String,
    model: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    vendor: String,
    id: String,
    input: f64,
    cache_read: f64,
    cache_write: f64,
    output: f64,
    long: Option<LongRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LongRow {
    above_tokens: u64,
    input: f64,
    cache_read: f64,
    cache_write: f64,
    output: f64,
}

/// Dollars to micro-dollars; the table's numbers are small and not negative (a test sees to it).
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a price is a small positive number of dollars"
)]
fn micro(dollars: f64) -> u64 {
    (dollars * 1e6).round() as u64
}

impl PriceTable {
    /// The table that is built in.
    #[must_use]
    pub fn embedded() -> &'static Self {
        &EMBEDDED
    }

    fn parse(text: &str) -> Result<Self, toml::de::Error> {
        let file: File = toml::from_str(text)?;
        let rates = |input, cache_read, cache_write, output| Rates {
            input: micro(input),
            cache_read: micro(cache_read),
            cache_write: micro(cache_write),
            output: micro(output),
        };
        let rows = file.model.into_iter().map(|row| {
            let price = Price {
                rates: rates(row.input, row.cache_read, row.cache_write, row.output),
                long_prompt: row.long.map(|long| LongPrompt {
                    above_tokens: long.above_tokens,
                    rates: rates(long.input, long.cache_read, long.cache_write, long.output),
                }),
            };
            (row.vendor, row.id, price)
        });
        Ok(Self { as_of: file.as_of, rows: rows.collect() })
    }

    /// The price of `model` at `vendor` (`anthropic`, `openai`, `gemini`), or `None` if the table does not
    /// know it. An id matches its row alone or followed by a date or `-latest`: a newer model
    /// whose name merely begins like an older one is unknown, not cheap.
    #[must_use]
    pub fn find(&self, vendor: &str, model: &str) -> Option<Price> {
        self.rows
            .iter()
            .find(|(of, id, _)| of == vendor && model.strip_prefix(id.as_str()).is_some_and(is_dated))
            .map(|(_, _, price)| *price)
    }
}

/// Whether what follows a model's id only dates it: nothing, `-latest`, `-20250929`, `-2025-08-07`.
fn is_dated(rest: &str) -> bool {
    let Some(date) = rest.strip_prefix('-').or_else(|| rest.strip_prefix('@')) else {
        return rest.is_empty();
    };
    let digits = date.bytes().filter(u8::is_ascii_digit).count();
    date == "latest"
        || (digits == 8 && date.bytes().all(|b| b.is_ascii_digit() || b == b'-') && matches!(date.len(), 8 | 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price(vendor: &str, model: &str) -> Option<Price> {
        PriceTable::embedded().find(vendor, model)
    }

    #[test]
    fn the_embedded_table_parses_and_is_dated() {
        let table = PriceTable::parse(include_str!("../prices.toml")).unwrap();
        assert!(table.as_of.parse::<jiff::civil::Date>().is_ok());
        for (vendor, id, price) in &table.rows {
            assert!(price.rates.input > 0 && price.rates.output > price.rates.input, "{vendor}/{id}");
            assert!(price.rates.cache_read <= price.rates.input, "{vendor}/{id}");
            assert_eq!(
                table.rows.iter().filter(|row| (&row.0, &row.1) == (vendor, id)).count(),
                1,
                "{vendor}/{id} twice"
            );
        }
    }

    #[test]
    fn an_unknown_model_has_no_price_even_if_its_name_begins_like_a_known_one() {
        assert!(price("anthropic", "claude-opus-4-5").is_some());
        assert!(price("anthropic", "claude-opus-4-5-20251101").is_some());
        assert_eq!(price("anthropic", "claude-opus-4-99"), None);
        assert_eq!(price("anthropic", "claude-opus-4-5-turbo"), None);
        assert_eq!(price("openai", "gpt-5.99"), None);
        assert_eq!(price("openai", "claude-opus-4-5"), None);
        assert_ne!(price("openai", "gpt-5"), price("openai", "gpt-5-mini"));
        assert_eq!(price("openai", "gpt-5-2025-08-07"), price("openai", "gpt-5"));
    }

    #[test]
    fn cost_counts_each_class_once_at_its_own_rate_and_rounds_up() {
        let usage = Usage {
            input_tokens: Some(1_000),
            cache_read_tokens: Some(10_000),
            cache_write_tokens: Some(2_000),
            output_tokens: Some(500),
        };
        // 1000*5 + 10000*0.5 + 2000*6.25 + 500*25 micro-dollars
        assert_eq!(price("anthropic", "claude-opus-4-5").unwrap().cost_micro_usd(&usage), Some(35_000));
        let one = Usage { input_tokens: Some(1), output_tokens: Some(0), ..Usage::default() };
        assert_eq!(price("openai", "gpt-5-mini").unwrap().cost_micro_usd(&one), Some(1));
    }

    #[test]
    fn a_long_prompt_is_charged_whole_at_the_long_rates() {
        let haiku = price("anthropic", "claude-haiku-5-5").unwrap();
        let at = |tokens: u64| Usage {
            input_tokens: Some(1),
            cache_read_tokens: Some(tokens - 1),
            cache_write_tokens: None,
            output_tokens: Some(0),
        };
        assert!(haiku.cost_micro_usd(&at(100_001)).unwrap() > 4 * haiku.cost_micro_usd(&at(100_000)).unwrap());
    }

    #[test]
    fn cost_is_unknown_when_usage_is_and_zero_only_when_declared_free() {
        let unknown = Usage::default();
        assert_eq!(price("openai", "gpt-5").unwrap().cost_micro_usd(&unknown), None);
        assert_eq!(Price::FREE.cost_micro_usd(&unknown), Some(0));
    }
}
