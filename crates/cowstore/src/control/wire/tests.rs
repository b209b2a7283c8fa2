use super::*;
use crate::transfer::ImportOptions;
use crate::types::SnapshotOptions;

#[test]
fn errors_survive_the_way() {
    let text = || "Ü \"x\"".to_owned();
    let mut errors = vec![
        Error::NotFound(text()),
        Error::Exists(text()),
        Error::Busy(text()),
        Error::Limit(text()),
        Error::Stale(text()),
        Error::ReadOnly(text()),
        Error::Poisoned(text()),
        Error::Corrupt(text()),
        Error::Unsupported(text()),
        Error::Invalid(text()),
    ];
    errors.push(Error::NoSpace(SpaceKind::Reserve { missing_bytes: 1 << 40 }));
    errors.extend(SPACES.map(|(_, kind)| Error::NoSpace(kind)));
    errors.extend(OPERATIONS.iter().map(|op| Error::Io { errno: 28, op, offset: 1 << 60 }));
    for error in errors {
        let json = serde_json::to_string(&WireError::from(&error)).unwrap();
        let back: WireError = serde_json::from_str(&json).unwrap();
        assert_eq!(Error::from(back), error, "{json}");
    }
    let later: WireError = serde_json::from_str(r#"{"kind":"later","message":"m","x":1}"#).unwrap();
    assert_eq!(Error::from(later), Error::Unsupported("m".into()));
}

#[test]
fn verbs_have_the_documented_form() {
    let verb = Verb::Snapshot { names: vec!["v@s".into()], options: SnapshotOptions::default() };
    let json = serde_json::to_value(&verb).unwrap();
    assert_eq!(json["verb"], "snapshot");
    let options = ImportOptions { volume: "v".into(), ..ImportOptions::default() };
    let json = serde_json::to_value(Verb::Import { options, file: None }).unwrap();
    assert_eq!((&json["verb"], &json["volume"]), (&"import".into(), &"v".into()));
    for text in [
        r#"{"verb":"snapshot","names":["v@s"]}"#,
        r#"{"verb":"import","volume":"v","later":true}"#,
        r#"{"verb":"list"}"#,
        r#"{"verb":"checkpoint"}"#,
        r#"{"verb":"delete","names":["a","b@c"],"dry_run":true}"#,
    ] {
        let verb = parse_verb(text.as_bytes()).unwrap();
        let again = serde_json::to_vec(&verb).unwrap();
        assert_eq!(format!("{:?}", parse_verb(&again).unwrap()), format!("{verb:?}"));
    }
}

#[test]
fn the_unknown_is_told_from_the_malformed() {
    let unknown = |text: &str| matches!(parse_verb(text.as_bytes()), Err(Error::Unsupported(_)));
    let malformed = |text: &str| matches!(parse_verb(text.as_bytes()), Err(Error::Invalid(_)));
    assert!(unknown(r#"{"verb":"teleport"}"#));
    assert!(unknown(r#"{"verb":""}"#));
    for text in ["", "5", "{}", r#"{"verb":1}"#, r#"{"verb":"undo"}"#, r#"{"verb":"list""#] {
        assert!(malformed(text), "{text}");
    }
}

#[test]
fn another_protocol_is_named() {
    let mut hello = Hello::new("u".into(), "p".into());
    assert_eq!(hello.check("u"), Ok(()));
    hello.protocol = 2;
    let Err(Error::Unsupported(text)) = hello.check("u") else { panic!() };
    assert!(text.contains("protocol 2") && text.contains("speaks 1"), "{text}");
}
