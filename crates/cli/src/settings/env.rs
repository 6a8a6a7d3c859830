//! Every environment variable that Chargehand reads, in one list, and the one place that reads
//! them. `ENVIRONMENT.md` beside this crate is made from the list and tested to be fresh.
//!
//! Absent: what a variable means together with flags and the file; that is `settings`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;

/// One variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub what: &'static str,
}

macro_rules! variables {
    ($($ident:ident = $name:literal: $what:literal;)*) => {
        $(#[doc = $what] pub const $ident: Variable = Variable { name: $name, what: $what };)*
        /// All of them, in the order of the docs.
        pub const ALL: &[Variable] = &[$($ident),*];
    };
}

variables! {
    DATA_DIR = "CHARGEHAND_DATA_DIR": "The data folder: tasks, repositories, sandboxes, the socket. Default: `$XDG_DATA_HOME/chargehand`, else `~/.local/share/chargehand`.";
    CONFIG = "CHARGEHAND_CONFIG": "The settings file. Default: `$XDG_CONFIG_HOME/chargehand/config.toml`, else `~/.config/chargehand/config.toml`.";
    MODEL = "CHARGEHAND_MODEL": "The model for tasks that name none, as `provider/model`.";
    LISTEN = "CHARGEHAND_LISTEN": "Address and port on which `serve` also listens by TCP, for example `127.0.0.1:7878`. Without it only the unix socket is served.";
    TOKEN = "CHARGEHAND_TOKEN": "The bearer token that TCP callers must send. Without it one is made and kept in the data folder.";
    SECRET_KEY = "CHARGEHAND_SECRET_KEY": "The key that stored secrets are sealed with: 32 random bytes in base64 (`openssl rand -base64 32`). Keys after a comma only open, for a change of keys. Without it one is made and kept in `secrets.key` in the data folder.";
    LOG = "CHARGEHAND_LOG": "What the server logs, as tracing filters, for example `info,sandbox=debug`. Default: `info`.";
    ANTHROPIC_API_KEY = "ANTHROPIC_API_KEY": "Key of the provider `anthropic`.";
    ANTHROPIC_BASE_URL = "ANTHROPIC_BASE_URL": "Where the provider `anthropic` is reached instead of its public address.";
    OPENAI_API_KEY = "OPENAI_API_KEY": "Key of the provider `openai`.";
    OPENAI_BASE_URL = "OPENAI_BASE_URL": "Where the provider `openai` is reached; a local endpoint (Ollama, llama.cpp, vLLM) needs no key.";
    GEMINI_API_KEY = "GEMINI_API_KEY": "Key of the provider `gemini`.";
    GOOGLE_GEMINI_BASE_URL = "GOOGLE_GEMINI_BASE_URL": "Where the provider `gemini` is reached instead of its public address.";
    NO_COLOR = "NO_COLOR": "If set and not empty, nothing is coloured.";
    TERM = "TERM": "`dumb` also switches colours off.";
    COLUMNS = "COLUMNS": "Width of the page, where the terminal does not say.";
    PATH = "PATH": "Where `git` and what it starts (`ssh`) are found; folders that are not absolute are passed over. Default: `/usr/local/bin`, `/usr/bin`, `/bin` and the like.";
    HOME = "HOME": "Where the defaults above begin, where toolchains are looked for, and where `ssh` and git find your keys for a repository elsewhere.";
    SSH_AUTH_SOCK = "SSH_AUTH_SOCK": "Your ssh agent, for reaching a repository elsewhere. No sandbox sees it.";
    HTTP_PROXY = "http_proxy": "The proxy through which git reaches repositories elsewhere; so do the next six.";
    HTTPS_PROXY = "https_proxy": "See `http_proxy`.";
    HTTPS_PROXY_UPPER = "HTTPS_PROXY": "See `http_proxy`.";
    ALL_PROXY = "all_proxy": "See `http_proxy`.";
    ALL_PROXY_UPPER = "ALL_PROXY": "See `http_proxy`.";
    NO_PROXY = "no_proxy": "See `http_proxy`.";
    NO_PROXY_UPPER = "NO_PROXY": "See `http_proxy`.";
    TMPDIR = "TMPDIR": "Where `demo` makes its scratch folder. Default: `/tmp`.";
    XDG_DATA_HOME = "XDG_DATA_HOME": "See `CHARGEHAND_DATA_DIR`.";
    XDG_CONFIG_HOME = "XDG_CONFIG_HOME": "See `CHARGEHAND_CONFIG`; git finds your settings there when your work tree moves along.";
    RUSTUP_HOME = "RUSTUP_HOME": "Where rustup keeps its toolchains, if not in `~/.rustup`.";
    CARGO_HOME = "CARGO_HOME": "Where cargo lives, if not in `~/.cargo`.";
    RUSTUP_TOOLCHAIN = "RUSTUP_TOOLCHAIN": "The toolchain that sandboxes get, if not rustup's default.";
    PYENV_ROOT = "PYENV_ROOT": "Where pyenv lives, if not in `~/.pyenv`.";
    PYENV_VERSION = "PYENV_VERSION": "The Python that sandboxes get, if not pyenv's default.";
    NVM_BIN = "NVM_BIN": "The Node that nvm has chosen.";
    GOROOT = "GOROOT": "Where Go lives, if not under `/usr`.";
    JAVA_HOME = "JAVA_HOME": "Where Java lives, if not under `/usr`.";
    USER = "USER": "Your name, where the system does not know it from your user id.";
    LOGNAME = "LOGNAME": "The same, where `USER` is not set.";
}

/// The environment as it was when the program began. Lives only while settings are made.
#[derive(Debug, Clone, Default)]
pub struct Env(BTreeMap<OsString, OsString>);

impl Env {
    /// The process's environment.
    #[must_use]
    pub fn of_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// A made-up environment, for tests.
    #[cfg(test)]
    #[must_use]
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        Self(pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect())
    }

    /// A variable's value; an empty one counts as not set.
    #[must_use]
    pub fn os(&self, variable: Variable) -> Option<&OsString> {
        self.named_os(variable.name)
    }

    /// A variable's value as text; `None` also if it is not UTF-8.
    #[must_use]
    pub fn text(&self, variable: Variable) -> Option<String> {
        self.named(variable.name)
    }

    /// The value of a variable that the settings file names (`api_key_env`).
    #[must_use]
    pub fn named(&self, name: &str) -> Option<String> {
        self.named_os(name).and_then(|value| value.to_str()).map(str::to_owned)
    }

    fn named_os(&self, name: &str) -> Option<&OsString> {
        self.0.get(std::ffi::OsStr::new(name)).filter(|value| !value.is_empty())
    }
}

/// The list as a Markdown page.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from(
        "# Environment variables\n\nEverything that `chargehand` reads from the environment. A flag wins over a variable, a variable\nover the settings file, the file over the default. An empty variable counts as not set. Beside\nthese, the settings file may name a variable that holds a provider's key (`api_key_env`).\n\nMade from `src/settings/env.rs` by `chargehand environment`; a test fails when it is stale.\n\n| variable | what it does |\n|---|---|\n",
    );
    for variable in ALL {
        let _ = writeln!(page, "| `{}` | {} |", variable.name, variable.what);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_variables_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/ENVIRONMENT.md");
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(written, markdown(), "write it again: chargehand environment > crates/cli/ENVIRONMENT.md");
    }

    #[test]
    fn no_variable_is_listed_twice() {
        let mut names: Vec<_> = ALL.iter().map(|variable| variable.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
