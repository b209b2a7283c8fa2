//! The examples of the seed documents, run as they stand against a real agent with a real file
//! system on the server's volume. Only scheme, host and token are replaced.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::seeds::{Call, DOCUMENTS, calls};
use cow_tests::{Agent, Place, configure, file_hash, have, pattern, resembles, run_ok};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const SERVER: u64 = 12345;
const IMAGE_BYTES: u64 = 48 << 20;

/// The code on a line of its own, and no progress: curl's own settings, so that the example stays
/// what it is.
const CURL_RC: &str = "silent\nshow-error\nwrite-out = \"\\n%{http_code}\"\n";

/// What an example shows is shown so that a program can read it, and at the end the code.
const BEFORE_JAVASCRIPT: &str = "\
const ask = globalThis.fetch;
globalThis.fetch = async (...words) => {
  const response = await ask(...words);
  process.on('exit', () => process.stdout.write(`${response.status}\\n`));
  return response;
};
console.log = (shown) => process.stdout.write(`${JSON.stringify(shown)}\\n`);
";

#[derive(Clone, Copy)]
enum Language {
    Curl,
    Python,
    JavaScript,
}

/// The Python of the environment that the test command makes.
fn python() -> Option<PathBuf> {
    let venv = std::env::var_os("COW_TEST_VENV").map(PathBuf::from);
    let python = venv.map(|venv| venv.join("bin/python3"));
    if python.is_none() {
        let skip = std::env::var_os("COW_SKIP_MISSING_TOOLS").is_some();
        assert!(skip, "COW_TEST_VENV is not set: run the tests by cargo xtask test");
        eprintln!("skipped: there is no Python environment");
    }
    python
}

impl Language {
    /// Runs an example; what it printed.
    fn run(self, place: &Place, agent: &Agent, call: &Call) -> String {
        let example = match self {
            Self::Curl => &call.curl,
            Self::Python => &call.python,
            Self::JavaScript => call.javascript.as_ref().unwrap(),
        };
        assert!(example.contains("https://admin.vps.org/api/v1/"), "{example}");
        let text = example
            .replace("https://admin.vps.org", agent.url())
            .replace("YOUR_API_TOKEN", agent.token());
        let mut command = match self {
            Self::Curl => {
                fs::write(place.path(".curlrc"), CURL_RC).unwrap();
                let mut command = Command::new("bash");
                command.arg("-c").arg(text).env("CURL_HOME", place.path(""));
                command
            }
            Self::Python => {
                let file = place.path("example.py");
                fs::write(&file, text).unwrap();
                let mut command = Command::new(python().unwrap());
                command.arg(file);
                command
            }
            Self::JavaScript => {
                let (before, file) = (place.path("before.cjs"), place.path("example.mjs"));
                fs::write(&before, BEFORE_JAVASCRIPT).unwrap();
                fs::write(&file, text).unwrap();
                let mut command = Command::new("node");
                command.arg("--require").arg(before).arg(file);
                command
            }
        };
        let output = command.stdin(Stdio::null()).output().unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{example}\n{out}\n{err}");
        out.trim().to_owned()
    }

    fn or_curl(self) -> Self {
        if matches!(self, Self::JavaScript) { Self::Curl } else { self }
    }

    /// The code that an example has shown, if it shows one.
    fn status(self, printed: &str) -> Option<u16> {
        match self {
            Self::Python => printed.trim().parse().ok(),
            _ => printed.lines().last()?.parse().ok(),
        }
    }

    /// The answer that an example has shown.
    fn answer(self, printed: &str) -> Value {
        let text = match self {
            Self::Curl => printed.rsplit_once('\n').unwrap().0.to_owned(),
            // A dictionary of Python's.
            Self::Python => {
                let say = "import ast, json, sys; print(json.dumps(ast.literal_eval(sys.argv[1])))";
                run_ok(&[python().unwrap().to_str().unwrap(), "-c", say, printed])
            }
            Self::JavaScript => printed.lines().rev().nth(1).unwrap().to_owned(),
        };
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }
}

/// A file system with files in it, of which `seed` decides the content.
fn file_system(place: &Place, seed: u64) -> PathBuf {
    let (tree, image) = (place.path("tree"), place.path("image.ext4"));
    fs::create_dir_all(tree.join("etc")).unwrap();
    for n in 0..40 {
        let len = 3000 * (n as usize % 7 + 1);
        fs::write(tree.join(format!("etc/file{n}")), pattern(seed + n, len)).unwrap();
    }
    let _ = fs::remove_file(&image);
    fs::File::create(&image).unwrap().set_len(IMAGE_BYTES).unwrap();
    let (tree, image_text) = (tree.to_str().unwrap(), image.to_str().unwrap());
    run_ok(&["mkfs.ext4", "-q", "-F", "-d", tree, image_text]);
    image
}

/// Puts an image on the server's volume, through NBD.
fn put(agent: &Agent, image: &std::path::Path) {
    let (image, uri) = (image.to_str().unwrap(), agent.nbd(SERVER, "root"));
    run_ok(&["qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, &uri]);
}

/// The front of the server's volume, as a file.
fn get(place: &Place, agent: &Agent) -> PathBuf {
    let out = place.path("out.ext4");
    let uri = agent.nbd(SERVER, "root");
    let _ = fs::remove_file(&out);
    run_ok(&["nbdcopy", &uri, out.to_str().unwrap()]);
    fs::File::options().write(true).open(&out).unwrap().set_len(IMAGE_BYTES).unwrap();
    out
}

fn story(language: Language, document: &str) {
    let calls = calls(document);
    let [list, create, restore, delete] = calls.as_slice() else { panic!("four calls") };
    let mut place = Place::new();
    configure(&place, "[agent]\nfirst_snapshot_id = 798\n");
    let agent = Agent::start(&mut place);
    put(&agent, &file_system(&place, 1));
    agent.snapshot(SERVER, "weekly-snapshot-2025-01-08", "Weekly snapshot");
    for _ in 0..2 {
        let passing = agent.snapshot(SERVER, "passing", "");
        agent.ask("DELETE", &format!("snapshots/{}/", passing["id"]), "").expect(204);
    }
    let good = file_system(&place, 100);
    put(&agent, &good);
    let good = file_hash(&good);
    let pre = agent.snapshot(SERVER, "pre-migration-snapshot", "Before major migration");
    assert_eq!(pre["id"], 801);

    let check = |call: &Call, status: u16| -> String {
        let printed = language.run(&place, &agent, call);
        if !matches!(language, Language::Python) {
            assert_eq!(language.status(&printed), Some(status), "{printed}");
        }
        resembles(call.answer.as_ref().unwrap(), &language.answer(&printed));
        printed
    };
    let listed = check(list, 200);
    assert!(listed.contains("weekly-snapshot-2025-01-08"), "{listed}");

    let created = check(create, 201);
    assert!(created.contains("802") && created.contains("in_progress"), "{created}");
    let taken = agent.ask("GET", "snapshots/802/", "").expect(200);
    assert_eq!(taken["description"], "Snapshot before system update");

    put(&agent, &file_system(&place, 200));
    let restored = check(restore, 200);
    assert!(restored.contains("success") && restored.contains("restoring"), "{restored}");
    let back = get(&place, &agent);
    run_ok(&["e2fsck", "-fn", back.to_str().unwrap()]);
    assert_eq!(file_hash(&back), good, "the files have their old content");

    let before = agent.ask("GET", "snapshots/801/", "").expect(200);
    let data_bytes = place.info("data_bytes");
    // In JavaScript nobody is shown how to delete.
    let language = language.or_curl();
    let deleted = language.run(&place, &agent, delete);
    assert_eq!(language.status(&deleted), Some(204), "{deleted}");
    agent.ask("GET", "snapshots/801/", "").problem(404);
    freed(&place, &before, data_bytes);

    // The other one has data of its own, and gives back exactly what was said.
    let before = agent.ask("GET", "snapshots/798/", "").expect(200);
    assert!(before["size_mb"].as_u64().unwrap() > 0 && before["exact"] == true, "{before}");
    let data_bytes = place.info("data_bytes");
    agent.ask("DELETE", "snapshots/798/", "").expect(204);
    freed(&place, &before, data_bytes);
    agent.stop();
    place.ok(&["check"]);
}

/// What a delete has freed is what was said before.
fn freed(place: &Place, snapshot: &Value, before: u64) {
    // A delete of something that waits until all that was deleted has come back.
    place.ok(&["create", "passing", "--size", "1M"]);
    place.ok(&["delete", "passing", "--wait"]);
    let freed = before - place.info("data_bytes");
    assert_eq!(snapshot["size_mb"], freed.div_ceil(1 << 20), "{snapshot}: freed {freed}");
}

fn in_both(language: Language) {
    let tools = ["mkfs.ext4", "e2fsck", "qemu-img", "nbdcopy", "bash", "curl", "node"];
    if !have(&tools) || python().is_none() {
        return;
    }
    for (name, document) in DOCUMENTS {
        eprintln!("{name}");
        story(language, document);
    }
}

#[test]
fn curl() {
    in_both(Language::Curl);
}

#[test]
fn python_requests() {
    in_both(Language::Python);
}

#[test]
fn javascript_fetch() {
    in_both(Language::JavaScript);
}

#[test]
fn a_difference_is_seen() {
    let printed = calls(DOCUMENTS[0].1)[0].answer.clone().unwrap();
    resembles(&printed, &printed);
    for (pointer, wrong) in [
        ("/count", Value::from(3)),
        ("/results/0/id", Value::from(802)),
        ("/results/0/server/name", Value::from("web")),
        ("/results/1/size_mb", Value::Null),
        ("/results/1/created_at", Value::from("2025-01-08T12:00:00.5Z")),
        ("/results/1", serde_json::json!({"id": 798})),
    ] {
        let mut answer = printed.clone();
        *answer.pointer_mut(pointer).unwrap() = wrong;
        let compared = std::panic::catch_unwind(|| resembles(&printed, &answer));
        assert!(compared.is_err(), "{pointer}");
    }
}

#[test]
fn the_documents_have_what_is_looked_for() {
    for (name, document) in DOCUMENTS {
        let calls = calls(document);
        assert_eq!(calls.len(), 4, "{name}");
        let has_answer: Vec<bool> = calls.iter().map(|call| call.answer.is_some()).collect();
        assert_eq!(has_answer, [true, true, true, false], "{name}");
        for (call, method) in calls.iter().zip(["GET", "POST", "POST", "DELETE"]) {
            assert!(call.curl.contains(&format!("-X {method}")), "{name}: {}", call.curl);
            let script = call.javascript.as_ref();
            assert!(script.map_or(method == "DELETE", |text| text.contains(method)), "{name}");
            let python = format!("requests.{}(", method.to_lowercase());
            assert!(call.python.contains(&python), "{name}: {}", call.python);
        }
    }
}
