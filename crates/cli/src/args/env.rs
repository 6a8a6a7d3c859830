//! The command line of `env`, as written.
//!
//! Absent: what it means.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Arguments of `env`.
#[derive(Debug, Args)]
pub struct EnvArgs {
    /// What to do
    #[command(subcommand)]
    pub command: EnvCommand,
}

/// What to do with environments.
#[derive(Debug, Subcommand)]
pub enum EnvCommand {
    /// Build the environment of a repository and watch; tasks would do it when they need it
    Build(EnvRepoArgs),
    /// List environments, the latest first
    List,
    /// Show a repository's recipe and what was built for it; with a key, that build and its log
    Show(EnvShowArgs),
    /// Look for mistakes in the environment file of the work tree, before it is committed
    Check(EnvCheckArgs),
    /// Remove environments that nobody used lately
    Gc(EnvGcArgs),
}

/// A repository.
#[derive(Debug, Args)]
pub struct EnvRepoArgs {
    /// The repository: a folder or a URL
    #[arg(long, default_value = ".")]
    pub repo: PathBuf,
    /// The branch [default: the one that is checked out]
    #[arg(long, value_name = "BRANCH")]
    pub base: Option<String>,
}

/// Arguments of `env show`.
#[derive(Debug, Args)]
pub struct EnvShowArgs {
    /// The key of a build, or its beginning
    pub key: Option<String>,
    /// The repository.
    #[command(flatten)]
    pub of: EnvRepoArgs,
}

/// Arguments of `env check`.
#[derive(Debug, Args)]
pub struct EnvCheckArgs {
    /// The work tree
    #[arg(long, default_value = ".")]
    pub repo: PathBuf,
}

/// Arguments of `env gc`.
#[derive(Debug, Args)]
pub struct EnvGcArgs {
    /// Everything that no unfinished task stands on
    #[arg(long)]
    pub all: bool,
}
