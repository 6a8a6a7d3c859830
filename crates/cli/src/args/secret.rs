//! The command line of `secret`, as written.
//!
//! Absent: an option for the value. It is declared only to be refused with the reason.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Arguments of `secret`.
#[derive(Debug, Args)]
pub struct SecretArgs {
    /// What to do
    #[command(subcommand)]
    pub command: SecretCommand,
}

/// What to do with secrets.
#[derive(Debug, Subcommand)]
pub enum SecretCommand {
    /// Store a credential; its value is read from standard input, or asked for without showing it
    Set(SecretSetArgs),
    /// List credentials and where each may go; never their values
    List,
    /// Remove a credential; requests of boxes go without it from then on
    Rm(SecretRmArgs),
    /// Tell who changed which credential, newest first
    Log,
    /// Seal all credentials with a new key and forget the old one
    RotateKey,
}

/// Arguments of `secret set`.
#[derive(Debug, Args)]
pub struct SecretSetArgs {
    /// What it is called: capital letters, digits and `_`, for example `NPM_TOKEN`
    pub name: String,
    /// A host that it may be sent to, such as api.example.com or 127.0.0.1:8080; several times for several
    #[arg(long = "host", value_name = "HOST")]
    pub hosts: Vec<String>,
    /// How it is added to a request: bearer, basic:USER or header:NAME
    #[arg(long = "as", value_name = "HOW", default_value = "bearer")]
    pub added_as: String,
    /// For whom it is.
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// Refused: a value on the command line is kept in shell histories.
    #[arg(long, hide = true, num_args = 0..=1, value_name = "VALUE")]
    pub value: Option<Option<String>>,
    /// Refused for the same reason.
    #[arg(hide = true, value_name = "VALUE")]
    pub extra: Vec<String>,
}

/// Arguments of `secret rm`.
#[derive(Debug, Args)]
pub struct SecretRmArgs {
    /// What it is called
    pub name: String,
    /// For whom it is.
    #[command(flatten)]
    pub scope: ScopeArgs,
}

/// For whom a secret is.
#[derive(Debug, Args)]
pub struct ScopeArgs {
    /// For tasks on this repository, a folder or a URL [default: the one around you]
    #[arg(long, value_name = "REPO")]
    pub repo: Option<PathBuf>,
    /// Only for this environment of the repository
    #[arg(long, value_name = "NAME")]
    pub environment: Option<String>,
    /// For every task on this server
    #[arg(long, conflicts_with_all = ["repo", "environment"])]
    pub server: bool,
}
