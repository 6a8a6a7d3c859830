//! Precedence, defaults and bad values of settings.

use super::*;

fn config(path: &str) -> ConfigFile {
    ConfigFile { path: path.into(), exists: false, exposed: false }
}

fn mean(flags: &Flags, env: &[(&str, &str)], file: &str) -> Result<Settings, SettingsError> {
    let mut pairs = vec![("HOME", "/home/ada")];
    pairs.extend_from_slice(env);
    let file = file::parse(Path::new("/c.toml"), file)?;
    Settings::mean(flags, &Env::of(&pairs), file, config("/c.toml"))
}

fn meant(env: &[(&str, &str)], file: &str) -> Settings {
    mean(&Flags::default(), env, file).unwrap()
}

#[test]
fn a_flag_wins_over_a_variable_and_a_variable_over_the_file_and_the_file_over_the_default() {
    let file = "data_dir = \"/from/file\"\n";
    let env = [("CHARGEHAND_DATA_DIR", "/from/env")];
    let flags = Flags { data_dir: Some("/from/flag".into()), ..Flags::default() };
    assert_eq!(mean(&flags, &env, file).unwrap().data_dir, Path::new("/from/flag"));
    assert_eq!(meant(&env, file).data_dir, Path::new("/from/env"));
    assert_eq!(meant(&[], file).data_dir, Path::new("/from/file"));
    assert_eq!(meant(&[], "").data_dir, Path::new("/home/ada/.local/share/chargehand"));
    assert_eq!(meant(&[("XDG_DATA_HOME", "/x")], "").data_dir, Path::new("/x/chargehand"));
    assert_eq!(meant(&[("XDG_DATA_HOME", "relative")], "").data_dir, Path::new("/home/ada/.local/share/chargehand"));
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    assert_eq!(meant(&[("CHARGEHAND_MODEL", ""), ("ANTHROPIC_API_KEY", "")], "").model, None);
}

#[test]
fn a_key_alone_chooses_a_model_and_says_where_it_came_from() {
    let settings = meant(&[("ANTHROPIC_API_KEY", " k \n")], "");
    assert_eq!(settings.model.as_deref(), Some(providers::DEFAULT_ANTHROPIC_MODEL));
    let provider = settings.providers.first().unwrap();
    assert_eq!(provider.key_source, KeySource::Env("ANTHROPIC_API_KEY".to_owned()));
    assert_eq!(provider.key.as_ref().unwrap().expose(), "k");
}

#[test]
fn a_local_url_is_a_provider_without_a_key_but_names_no_model() {
    let settings = meant(&[("OPENAI_BASE_URL", "http://127.0.0.1:11434/v1")], "");
    let provider = settings.providers.first().unwrap();
    assert!(provider.is_local() && provider.is_usable());
    assert_eq!(settings.model, None);
}

#[test]
fn the_variable_that_the_file_names_holds_the_key() {
    let file = "[providers.acme]\nkind = \"chat\"\nbase_url = \"https://acme.example/v1\"\napi_key_env = \"ACME\"\n";
    let with = meant(&[("ACME", "k")], file);
    assert_eq!(with.providers.first().unwrap().key_source, KeySource::Env("ACME".to_owned()));
    let without = meant(&[], file);
    assert_eq!(without.providers.first().unwrap().key_source, KeySource::EnvUnset("ACME".to_owned()));
}

#[test]
fn a_key_is_not_shown_by_debug() {
    let keys =
        [("ANTHROPIC_API_KEY", "sk-canary"), ("CHARGEHAND_TOKEN", "t-canary"), ("CHARGEHAND_SECRET_KEY", "k-canary")];
    let settings = meant(&keys, "");
    assert!(settings.secret_key.is_some() && !format!("{settings:?}").contains("canary"));
}

#[test]
fn local_hosts_are_told_from_public_ones() {
    let local = |url: &str| {
        let file = format!("[providers.x]\nkind = \"chat\"\nbase_url = \"{url}\"\n");
        meant(&[], &file).providers.first().unwrap().is_local()
    };
    for url in [
        "http://localhost:1/v1",
        "http://127.0.0.1/v1",
        "http://[::1]:8080",
        "http://192.168.1.4:8000/v1",
        "http://box.local",
    ] {
        assert!(local(url), "{url}");
    }
    for url in ["https://api.openai.com/v1", "https://127.0.0.1.example.com/", "https://8.8.8.8/"] {
        assert!(!local(url), "{url}");
    }
}

#[test]
fn a_wrong_listen_address_is_named_with_an_example() {
    let error = mean(&Flags::default(), &[("CHARGEHAND_LISTEN", "8080")], "").unwrap_err().to_string();
    assert!(error.contains("CHARGEHAND_LISTEN") && error.contains("127.0.0.1:7878"), "{error}");
}

#[test]
fn a_budget_of_the_file_replaces_the_default_field_by_field() {
    let budget = meant(&[], "[budget]\nusd = 0.5\nhours = 2\n").budget;
    assert_eq!(
        (budget.money_micro_usd, budget.wall_ms, budget.turns),
        (Some(500_000), 7_200_000, Budget::default().turns)
    );
    assert!(mean(&Flags::default(), &[], "[budget]\nusd = -1.0\n").is_err());
    assert!(mean(&Flags::default(), &[], "[budget]\nturns = 0\n").is_err());
}

#[test]
fn without_a_home_folder_the_error_names_the_flag() {
    let error = Settings::mean(&Flags::default(), &Env::of(&[]), File::default(), config("/c")).unwrap_err();
    assert!(error.to_string().contains("--data-dir"));
}

#[test]
fn a_path_that_no_socket_can_have_is_refused_before_anything_starts() {
    let flags = Flags { data_dir: Some(format!("/{}", "x".repeat(120)).into()), ..Flags::default() };
    assert!(matches!(mean(&flags, &[], ""), Err(SettingsError::LongPath { .. })));
}

#[test]
fn git_gets_the_persons_way_to_their_repositories_and_nothing_else_of_the_environment() {
    let env = [("PATH", "/opt/git/bin:relative::/usr/bin"), ("SSH_AUTH_SOCK", "/run/agent"), ("AWS_SECRET", "x")];
    let git = meant(&env, "").git;
    assert_eq!(git.search_path.as_deref(), Some(std::ffi::OsStr::new("/opt/git/bin:/usr/bin")));
    let names: Vec<_> = git.person.iter().map(|(name, _)| name.to_str().unwrap()).collect();
    assert_eq!(names, ["HOME", "SSH_AUTH_SOCK"]);
    assert_eq!(meant(&[("PATH", "relative")], "").git.search_path, None);
}

#[test]
fn the_user_is_found_by_id() {
    let users = "root:x:0:0:root:/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\n";
    assert_eq!(user_of(users, 1000).as_deref(), Some("ada"));
    assert_eq!(user_of(users, 1), None);
}

#[test]
fn without_any_model_the_message_names_the_three_ways_out_and_the_demo() {
    let message = meant(&[], "").select_model(None).unwrap_err();
    for way in ["ANTHROPIC_API_KEY", "OPENAI_BASE_URL", "--agent command", "demo"] {
        assert!(message.contains(way), "{way} is missing in: {message}");
    }
}

#[test]
fn a_local_endpoint_is_asked_as_an_ordinary_chat_server() {
    let settings = meant(&[("OPENAI_BASE_URL", "http://127.0.0.1:11434/v1")], "");
    assert!(settings.select_model(None).unwrap_err().contains("--model openai/NAME"));
    for selection in ["openai/qwen3:8b", "chat/qwen3:8b"] {
        let selected = settings.select_model(Some(selection)).unwrap();
        assert_eq!(selected.model, "qwen3:8b");
        assert!(matches!(selected.config.endpoint, model::Endpoint::Chat { .. }), "{selection}");
    }
}

#[test]
fn each_kind_of_provider_is_built_as_its_own_protocol() {
    use model::Endpoint;
    let select = |environment: &[(&str, &str)], file: &str, selection: &str| {
        meant(environment, file).select_model(Some(selection)).unwrap().config.endpoint
    };
    let key = [("OPENAI_API_KEY", "k")];
    let file = "[providers.openai]\nkind = \"responses\"\n";
    assert!(matches!(select(&key, file, "openai/gpt-6-sol"), Endpoint::Responses { base_url: None, key: Some(_) }));
    let file = "[providers.near]\nkind = \"responses\"\nbase_url = \"http://127.0.0.1:9/v1\"\n";
    assert!(matches!(select(&[], file, "near/m"), Endpoint::Responses { base_url: Some(_), key: None }));
    let key = [("GEMINI_API_KEY", "k")];
    assert!(matches!(select(&key, "", "gemini/gemini-3-pro"), Endpoint::Gemini { base_url: None, key: Some(_) }));
    let file = "[providers.google]\nkind = \"gemini\"\napi_key = \"k\"\n";
    assert!(matches!(select(&[], file, "google/gemini-3-pro"), Endpoint::Gemini { base_url: None, key: Some(_) }));
}

#[test]
fn the_users_own_price_goes_with_its_model_alone() {
    let file = "[providers.acme]\nkind = \"chat\"\nbase_url = \"http://acme/v1\"\n[providers.acme.prices.big]\ninput = 2.0\noutput = 8.0\n";
    let settings = meant(&[], file);
    let price = settings.select_model(Some("acme/big")).unwrap().config.price.unwrap();
    assert_eq!((price.rates.input, price.rates.cache_read, price.rates.output), (2_000_000, 2_000_000, 8_000_000));
    assert!(settings.select_model(Some("acme/small")).unwrap().config.price.is_none());
}

#[test]
fn a_model_of_a_provider_without_a_key_says_where_the_key_was_expected() {
    let file = "[providers.acme]\nkind = \"anthropic\"\napi_key_env = \"ACME\"\n";
    assert!(meant(&[], file).select_model(Some("acme/x")).unwrap_err().contains("ACME"));
    assert!(meant(&[], "").select_model(Some("nobody/x")).unwrap_err().contains("[providers.nobody]"));
    assert!(meant(&[], "").select_model(Some("claude")).unwrap_err().contains("provider/model"));
    let local = meant(&[("OPENAI_BASE_URL", "http://127.0.0.1:11434/v1")], "");
    assert!(local.select_model(Some("qwen")).unwrap_err().contains("for example openai/qwen"));
}
