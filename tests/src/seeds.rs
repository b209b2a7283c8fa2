//! The documents that the snapshot API was made after, and the examples in them.
//!
//! Both are the same page in two languages, copied as text: headings and prose in that language,
//! and the examples, which are the same. The calls stand in the order list, create, restore,
//! delete; each has a curl and a Python example, and all but the delete a JavaScript one and an answer.

use serde_json::Value;

/// The page in two languages.
pub const DOCUMENTS: [(&str, &str); 2] =
    [("arabic", include_str!("../seeds/arabic.txt")), ("zulu", include_str!("../seeds/zulu.txt"))];

/// One call.
#[derive(Debug)]
pub struct Call {
    /// The example for a shell.
    pub curl: String,
    /// The example in Python.
    pub python: String,
    /// The example in JavaScript; the delete has none.
    pub javascript: Option<String>,
    /// The printed answer; the delete has none.
    pub answer: Option<Value>,
}

/// The calls of a document: each begins with its curl example.
#[must_use]
pub fn calls(document: &str) -> Vec<Call> {
    let lines: Vec<&str> = document.lines().collect();
    let is_begin = |at: &usize| lines[*at].starts_with("curl ");
    let mut begins: Vec<usize> = (0..lines.len()).filter(is_begin).collect();
    begins.push(lines.len());
    let call = |bounds: &[usize]| {
        let lines = &lines[bounds[0]..bounds[1]];
        Call {
            curl: shell(lines),
            python: between(lines, "import requests", "print(").expect("a Python example"),
            javascript: between(lines, "const ", "console.log("),
            answer: answer(lines),
        }
    };
    begins.windows(2).map(call).collect()
}

/// A command: lines as long as they go on, which a backslash or an open quote says.
fn shell(lines: &[&str]) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(line);
        let is_open = text.matches('\'').count() % 2 == 1;
        if !line.ends_with('\\') && !is_open {
            break;
        }
        text.push('\n');
    }
    text
}

/// Lines from the first that begins so to the next that begins so.
fn between(lines: &[&str], first: &str, last: &str) -> Option<String> {
    let from = lines.iter().position(|line| line.starts_with(first))?;
    let count = lines[from..].iter().position(|line| line.starts_with(last))? + 1;
    Some(lines[from..from + count].join("\n"))
}

/// The printed answer: what stands between braces that are alone on their lines.
fn answer(lines: &[&str]) -> Option<Value> {
    let from = lines.iter().position(|line| *line == "{")?;
    let mut depth = 0;
    let mut text = String::new();
    for line in &lines[from..] {
        depth += line.matches(['{', '[']).count();
        depth -= line.matches(['}', ']']).count();
        text.push_str(line);
        if depth == 0 {
            break;
        }
    }
    Some(serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")))
}
