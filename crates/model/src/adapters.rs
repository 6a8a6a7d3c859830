//! The four HTTP providers: each joins a wire's two pure functions with [`crate::http`] and a price.

use std::sync::Arc;

use crate::chat::request::Dialect;
use crate::http::Http;
use crate::provider::{EventStream, Provider};
use crate::transcript::{Request, Wire};
use crate::usage::{Price, PriceTable};
use crate::{anthropic, chat, gemini, responses};

/// Anthropic Messages over HTTP.
pub(crate) struct Anthropic {
    pub(crate) http: Arc<Http>,
    pub(crate) price: Option<Price>,
}

impl Provider for Anthropic {
    fn name(&self) -> &str {
        self.http.name()
    }
    fn wire(&self) -> Wire {
        Wire::AnthropicMessages
    }
    fn price(&self, model: &str) -> Option<Price> {
        self.price.or_else(|| PriceTable::embedded().find("anthropic", model))
    }
    fn stream(&self, request: &Request) -> EventStream {
        let mut draft = self.http.draft(&request.model, self.price(&request.model));
        self.http.stream(anthropic::request::body(request, self.name()), move |id| {
            draft.request_id = id;
            anthropic::decode::MessagesDecoder::new(draft)
        })
    }
}

/// Chat Completions over HTTP.
pub(crate) struct Chat {
    pub(crate) http: Arc<Http>,
    pub(crate) price: Option<Price>,
    /// Whose prices the table is asked for.
    pub(crate) vendor: Option<&'static str>,
    pub(crate) dialect: Dialect,
}

impl Provider for Chat {
    fn name(&self) -> &str {
        self.http.name()
    }
    fn wire(&self) -> Wire {
        Wire::ChatCompletions
    }
    fn price(&self, model: &str) -> Option<Price> {
        self.price.or_else(|| PriceTable::embedded().find(self.vendor?, model))
    }
    fn stream(&self, request: &Request) -> EventStream {
        let mut draft = self.http.draft(&request.model, self.price(&request.model));
        self.http.stream(chat::request::body(request, self.name(), self.dialect), move |id| {
            draft.request_id = id;
            chat::decode::ChatDecoder::new(draft)
        })
    }
}

/// OpenAI Responses over HTTP.
pub(crate) struct Responses {
    pub(crate) http: Arc<Http>,
    pub(crate) price: Option<Price>,
    /// Whose prices the table is asked for.
    pub(crate) vendor: Option<&'static str>,
}

impl Provider for Responses {
    fn name(&self) -> &str {
        self.http.name()
    }
    fn wire(&self) -> Wire {
        Wire::Responses
    }
    fn price(&self, model: &str) -> Option<Price> {
        self.price.or_else(|| PriceTable::embedded().find(self.vendor?, model))
    }
    fn stream(&self, request: &Request) -> EventStream {
        let mut draft = self.http.draft(&request.model, self.price(&request.model));
        self.http.stream(responses::request::body(request, self.name()), move |id| {
            draft.request_id = id;
            responses::decode::ResponsesDecoder::new(draft)
        })
    }
}

/// Gemini over HTTP. The endpoint's URL is the one that models hang below.
pub(crate) struct Gemini {
    pub(crate) http: Arc<Http>,
    pub(crate) price: Option<Price>,
}

impl Provider for Gemini {
    fn name(&self) -> &str {
        self.http.name()
    }
    fn wire(&self) -> Wire {
        Wire::Gemini
    }
    fn price(&self, model: &str) -> Option<Price> {
        self.price.or_else(|| PriceTable::embedded().find("gemini", bare(model)))
    }
    fn stream(&self, request: &Request) -> EventStream {
        let mut draft = self.http.draft(&request.model, self.price(&request.model));
        let mut url = self.http.url().clone();
        if let Ok(mut path) = url.path_segments_mut() {
            // A name is one segment: whatever it holds, it leads to no other place.
            path.push(&format!("{}:streamGenerateContent", bare(&request.model)));
        }
        url.set_query(Some("alt=sse"));
        self.http.stream_from(url, gemini::request::body(request, self.name()), move |id| {
            draft.request_id = id;
            gemini::decode::GeminiDecoder::new(draft)
        })
    }
}

/// The provider's listings write `models/NAME`.
fn bare(model: &str) -> &str {
    model.strip_prefix("models/").unwrap_or(model)
}
