//! Counts of one run beside those that are committed.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// A rise of more than so many per cent fails.
const MOST_RISE_PERCENT: u64 = 5;

/// Instructions of one call of each step, and where they were counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub environment: BTreeMap<String, String>,
    pub steps: BTreeMap<String, u64>,
}

impl Counts {
    pub fn parse(text: &str) -> Result<Self> {
        let json: Value = serde_json::from_str(text)?;
        let object = |key: &str| json[key].as_object().with_context(|| format!("no `{key}`"));
        let environment = object("environment")?.iter().map(|(key, value)| {
            let text = value.as_str().with_context(|| format!("{key}: no text"))?;
            Ok((key.clone(), text.to_owned()))
        });
        let steps = object("steps")?.iter().map(|(key, value)| {
            Ok((key.clone(), value.as_u64().with_context(|| format!("{key}: no number"))?))
        });
        Ok(Self {
            environment: environment.collect::<Result<_>>()?,
            steps: steps.collect::<Result<_>>()?,
        })
    }

    pub fn to_text(&self) -> String {
        format!("{:#}\n", json!({ "environment": self.environment, "steps": self.steps }))
    }
}

/// What a comparison came to.
#[derive(Debug, Default)]
pub struct Report {
    /// For a person.
    pub text: String,
    /// Why it fails; nothing if it does not.
    pub failed: Vec<String>,
}

/// Compares `found` with what is `recorded`. In another environment nothing fails.
pub fn compare(recorded: &Counts, found: &Counts) -> Report {
    let mut report = Report::default();
    let mut note = |line: &str| _ = writeln!(report.text, "{line}");
    let mut failed = Vec::new();
    for (name, &now) in &found.steps {
        let Some(&before) = recorded.steps.get(name) else {
            failed.push(format!("{name}: {now} instructions, none recorded"));
            continue;
        };
        let ratio = now as f64 / before.max(1) as f64;
        note(&format!("{name:<28} {before:>10} {now:>10}  {ratio:.3}"));
        if now * 100 > before * (100 + MOST_RISE_PERCENT) {
            failed.push(format!(
                "{name}: {before} instructions recorded, {now} now: {ratio:.3} times"
            ));
        } else if now * (100 + MOST_RISE_PERCENT) < before * 100 {
            note(&format!("{name}: fewer than recorded; record anew, so that they stay so few"));
        }
    }
    let gone = recorded.steps.keys().filter(|name| !found.steps.contains_key(*name));
    failed.extend(gone.map(|name| format!("{name}: recorded, and no step any more")));
    if recorded.environment == found.environment {
        report.failed = failed;
        return report;
    }
    failed.iter().for_each(|line| note(line));
    for (key, now) in &found.environment {
        let before = recorded.environment.get(key).map_or("nothing", String::as_str);
        if before != now {
            note(&format!("{key}: {now}; recorded with {before}"));
        }
    }
    note("another environment: nothing was judged. Record anew: cargo xtask counts --record");
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(rustc: &str, steps: &[(&str, u64)]) -> Counts {
        let steps = steps.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        Counts { environment: BTreeMap::from([("rustc".to_owned(), rustc.to_owned())]), steps }
    }

    fn failed(recorded: &[(&str, u64)], found: &[(&str, u64)]) -> Vec<String> {
        compare(&counts("1", recorded), &counts("1", found)).failed
    }

    #[test]
    fn a_rise_of_more_than_a_twentieth_fails_with_both_figures_and_the_ratio() {
        assert!(failed(&[("a", 1000)], &[("a", 1050)]).is_empty());
        let failed = failed(&[("a", 1000), ("b", 7)], &[("a", 1051), ("b", 7)]);
        assert_eq!(failed, ["a: 1000 instructions recorded, 1051 now: 1.051 times"]);
    }

    #[test]
    fn a_fall_is_told_and_does_not_fail() {
        let report = compare(&counts("1", &[("a", 1000)]), &counts("1", &[("a", 900)]));
        assert!(report.failed.is_empty());
        assert!(report.text.contains("a: fewer than recorded"), "{}", report.text);
        let report = compare(&counts("1", &[("a", 1000)]), &counts("1", &[("a", 990)]));
        assert!(!report.text.contains("fewer"), "{}", report.text);
    }

    #[test]
    fn a_missing_step_and_a_new_one_fail() {
        let failed = failed(&[("old", 5)], &[("new", 6)]);
        let expected =
            ["new: 6 instructions, none recorded", "old: recorded, and no step any more"];
        assert_eq!(failed, expected);
    }

    #[test]
    fn in_another_environment_all_is_told_and_nothing_fails() {
        let recorded = counts("1", &[("a", 1000), ("old", 5)]);
        let report = compare(&recorded, &counts("2", &[("a", 2000), ("new", 6)]));
        assert!(report.failed.is_empty());
        for word in
            ["2000 now: 2.000 times", "new: 6", "old: recorded", "rustc: 2; recorded with 1"]
        {
            assert!(report.text.contains(word), "{word} in {}", report.text);
        }
        assert!(report.text.contains("Record anew"), "{}", report.text);
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let counts = counts("1", &[("a", 1000), ("b", 1)]);
        assert_eq!(Counts::parse(&counts.to_text()).unwrap(), counts);
        assert!(Counts::parse("{}").unwrap_err().to_string().contains("environment"));
    }
}
