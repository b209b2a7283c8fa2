//! The part of `cargo metadata` that the chores look at.

use crate::process;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The workspace and everything it depends on.
pub struct Metadata {
    pub root: PathBuf,
    pub target_dir: PathBuf,
    pub packages: Vec<Package>,
}

pub struct Package {
    pub name: String,
    pub version: String,
    pub dir: PathBuf,
    pub license: Option<String>,
    /// Is it a member of the workspace?
    pub member: bool,
    pub deps: Vec<Dep>,
    pub targets: Vec<Target>,
}

pub struct Dep {
    pub name: String,
    pub dev: bool,
    /// Does it come from a path, and not from a registry?
    pub local: bool,
}

pub struct Target {
    pub kinds: Vec<String>,
    pub root_file: PathBuf,
}

impl Target {
    pub fn is_lib(&self) -> bool {
        self.kinds.iter().any(|kind| kind.ends_with("lib") || kind == "proc-macro")
    }

    pub fn is_bin(&self) -> bool {
        self.kinds.iter().any(|kind| kind == "bin")
    }
}

impl Metadata {
    /// Of the workspace around `dir`, with all dependencies.
    pub fn load(dir: &Path) -> Result<Self> {
        Self::query(dir, &[])
    }

    /// The members alone: needs no registry.
    pub fn load_members(dir: &Path) -> Result<Self> {
        Self::query(dir, &["--no-deps"])
    }

    fn query(dir: &Path, extra: &[&str]) -> Result<Self> {
        let mut command = process::cargo();
        command.args(["metadata", "--quiet", "--format-version", "1"]).args(extra).current_dir(dir);
        let output = command.output().context("cannot start cargo")?;
        if !output.status.success() {
            bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Self::parse(&serde_json::from_slice(&output.stdout)?).context("cargo metadata")
    }

    fn parse(json: &Value) -> Result<Self> {
        let members: Vec<&str> =
            list(json, "workspace_members")?.iter().filter_map(Value::as_str).collect();
        let packages = list(json, "packages")?.iter().map(|p| Package::parse(p, &members));
        Ok(Self {
            root: text(json, "workspace_root")?.into(),
            target_dir: text(json, "target_directory")?.into(),
            packages: packages.collect::<Result<_>>()?,
        })
    }

    pub fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.member)
    }
}

impl Package {
    fn parse(json: &Value, members: &[&str]) -> Result<Self> {
        let manifest = Path::new(text(json, "manifest_path")?);
        let deps = list(json, "dependencies")?.iter().map(|dep| {
            Ok(Dep {
                name: text(dep, "name")?.to_owned(),
                dev: dep["kind"] == "dev",
                local: dep["path"].is_string(),
            })
        });
        let targets = list(json, "targets")?.iter().map(|target| {
            Ok(Target {
                kinds: strings(target, "kind")?,
                root_file: text(target, "src_path")?.into(),
            })
        });
        Ok(Self {
            name: text(json, "name")?.to_owned(),
            version: text(json, "version")?.to_owned(),
            dir: manifest.parent().context("a manifest without a directory")?.to_owned(),
            license: json["license"].as_str().map(str::to_owned),
            member: members.contains(&text(json, "id")?),
            deps: deps.collect::<Result<_>>()?,
            targets: targets.collect::<Result<_>>()?,
        })
    }
}

fn text<'a>(json: &'a Value, key: &str) -> Result<&'a str> {
    json[key].as_str().with_context(|| format!("no text field `{key}`"))
}

fn list<'a>(json: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    json[key].as_array().with_context(|| format!("no list `{key}`"))
}

fn strings(json: &Value, key: &str) -> Result<Vec<String>> {
    Ok(list(json, key)?.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}
