//! What a written list means, and which mistakes make it no list at all.

use super::*;

fn entry(toml: &str) -> AllowEntry {
    toml::from_str(toml).unwrap()
}

fn problem(toml: &str) -> EntryProblem {
    AllowList::new(vec![entry(toml)]).unwrap_err().problem
}

#[test]
fn a_list_survives_being_written_and_read() {
    let list = AllowList::new(vec![
        entry("host = \"api.example.com\"\nmethods = [\"get\"]\npaths = [\"/v1\"]\nsecret = \"KEY\"\nas = { header = \"X-Api-Key\" }"),
        entry("group = \"git:forge.example/me/repo\"\npush = \"chargehand/task-1\"\nsecret = \"TOKEN\""),
    ])
    .unwrap()
    .within(&AllowList::new(vec![entry("host = \"*.example.com\"")]).unwrap());
    let json = serde_json::to_string(&list).unwrap();
    assert_eq!(serde_json::from_str::<AllowList>(&json).unwrap(), list);
    assert_eq!(list.secret_names().collect::<Vec<_>>(), ["KEY", "TOKEN"]);
}

#[test]
fn an_entry_that_is_wrong_says_how() {
    assert_eq!(problem(""), EntryProblem::HostOrGroup);
    assert_eq!(problem("host = \"a.b\"\ngroup = \"npm\""), EntryProblem::HostOrGroup);
    assert!(matches!(problem("host = \"127.1\""), EntryProblem::Host { error: TargetError::OddAddress, .. }));
    assert!(matches!(problem("host = \"https://a.b\""), EntryProblem::Host { .. }));
    assert!(matches!(problem("host = \"*\""), EntryProblem::Host { .. }));
    assert!(matches!(problem("host = \"a.*.b\""), EntryProblem::Host { .. }));
    assert_eq!(problem("host = \"*.com\""), EntryProblem::Wildcard);
    assert_eq!(problem("host = \"*.1.2.3.4\""), EntryProblem::Wildcard);
    assert_eq!(problem("host = \"a.b\"\nports = [0]"), EntryProblem::Port);
    assert_eq!(problem("host = \"a.b\"\nscheme = \"tcp\""), EntryProblem::Port);
    assert_eq!(problem("host = \"a.b\"\nscheme = \"tcp\"\nports = [22]\npaths = [\"/\"]"), EntryProblem::Unread);
    assert_eq!(problem("host = \"a.b\"\nmethods = [\"G T\"]"), EntryProblem::Method("G T".into()));
    assert!(matches!(problem("host = \"a.b\"\npaths = [\"v1\"]"), EntryProblem::Path { .. }));
    assert_eq!(problem("group = \"maven\""), EntryProblem::Group("maven".into()));
    assert_eq!(problem("group = \"npm\""), EntryProblem::NoHosts);
    assert_eq!(problem("group = \"npm\"\nhosts = [\"a.b\"]\npaths = [\"/\"]"), EntryProblem::GroupRules);
    assert_eq!(problem("host = \"a.b\"\npush = \"x\""), EntryProblem::Push);
    assert_eq!(problem("group = \"git:a.b/o/r\"\npush = \"a..b\""), EntryProblem::Push);
    assert_eq!(problem("host = \"a.b\"\nas = \"bearer\""), EntryProblem::AsWithoutSecret);
    assert_eq!(problem("host = \"a.b\"\nsecret = \"a b\""), EntryProblem::SecretName);
    assert_eq!(problem("host = \"a.b\"\nsecret = \"A\"\nas = { header = \"Host\" }"), EntryProblem::SecretName);
    assert_eq!(problem("host = \"a.b\"\nsecret = \"A\"\nscheme = \"http\""), EntryProblem::SecretInClear);
    assert_eq!(problem("host = \"*.a.b\"\nsecret = \"A\""), EntryProblem::SecretForWildcard);
}

#[test]
fn one_broken_entry_breaks_the_list() {
    let error = AllowList::new(vec![entry("host = \"a.b\""), entry("host = \"a b\"")]).unwrap_err();
    assert_eq!((error.number, error.name.as_str()), (2, "a b"));
    assert!(error.to_string().contains("nothing is allowed"), "{error}");
    assert!(serde_json::from_str::<AllowList>("{\"allow\":[{\"host\":\"a.b\",\"prots\":[1]}]}").is_err());
    assert!(serde_json::from_str::<AllowList>("{}").unwrap().is_empty());
}
