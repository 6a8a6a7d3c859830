//! Environments: what a repository's boxes start from, and how that is made once for many of them.
//!
//! ```text
//! files at the base commit ─→ choose ─→ Recipe ─┐
//! base on disk ─→ import ─→ layer ──────────────┼─→ key ─→ build ─→ layer  ─→ every attempt forks it
//! checkout layer (the caller's) ────────────────┘             └─→ registry: one record, one log
//! ```
//!
//! A *recipe* ([`recipe`]) says what is wanted; it comes from `.chargehand/environment.toml`
//! ([`file`]), from a `devcontainer.json` ([`devcontainer`]), or is derived from the tree's files
//! ([`derive`]); [`choose`] takes the first of the three. A *key* ([`key`]) is the digest of all that
//! went in. An import ([`import`]) makes a layer out of a folder, an archive or an image somebody
//! else made, and trusts nothing in it. A *build* ([`build`]) runs the setup commands in a box and
//! keeps what they changed as a layer. The *registry* ([`registry`]) is a folder of records.
//!
//! Absent: git (bytes of files come in as arguments), the clock (so do times), the way out of the
//! box (it is a folder with a socket here), and secrets: their values are never given to a box, and
//! a build that is told them only looks for them.

pub mod build;
pub mod choose;
mod clean;
pub mod derive;
pub mod devcontainer;
mod elf;
pub mod file;
pub mod forbidden;
pub mod import;
pub mod key;
mod land;
pub mod log;
mod oci;
pub mod recipe;
#[cfg(test)]
mod recipe_tests;
pub mod registry;
mod render;
mod report;
mod tar;
mod unpack;
pub mod values;

pub use choose::{Chosen, Origin, Sources, choose};
pub use key::{KeyParts, environment_key, environment_key_at};
pub use recipe::{Allow, Base, Host, Note, Recipe, RecipeError, SecretUse, SetupCommand, SetupNetwork};
