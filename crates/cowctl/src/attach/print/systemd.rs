//! Units for systemd: one that serves the pool, one that attaches the volume to this machine.
//!
//! No mount unit: systemd would wait for udev to announce the link, which it does not. A volume is
//! mounted by the unit that attaches it, so that it is unmounted before it is detached, and detached
//! before the server ends, which otherwise refuses to go.

/// Both units, each after a line with the path where it belongs. `pool_name` is made of characters that
/// a path below `/dev` may have.
pub fn units(program: &str, pool: &str, pool_name: &str, name: &str) -> String {
    let server = format!("cow-{}.service", unit_part(pool_name));
    let volume = format!("cow-{}-{}.service", unit_part(pool_name), unit_part(name));
    let dir = pool.rsplit_once('/').map_or("/", |(dir, _)| if dir.is_empty() { "/" } else { dir });
    let run = format!("{} -p {}", executable(program), argument(pool));
    let read_only = if name.contains('@') { "-o ro " } else { "" };
    format!(
        "# /etc/systemd/system/{server}\n\
         [Unit]\n\
         Description=Cowstore pool {title}\n\
         RequiresMountsFor={mounts}\n\
         Wants=modprobe@fuse.service modprobe@loop.service\n\
         After=modprobe@fuse.service modprobe@loop.service\n\
         \n\
         [Service]\n\
         Type=notify\n\
         ExecStart={run} serve\n\
         # Block devices of this machine depend on it.\n\
         OOMScoreAdjust=-900\n\
         LimitMEMLOCK=infinity\n\
         Restart=on-failure\n\
         TimeoutStopSec=5min\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n\
         \n\
         # /etc/systemd/system/{volume}\n\
         [Unit]\n\
         Description={name} of Cowstore pool {title}\n\
         BindsTo={server}\n\
         After={server}\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         ExecStart={run} attach {name}\n\
         # To have it mounted at DIR, which has to exist:\n\
         #ExecStart=mount {read_only}/dev/cow/{pool_name}/{name} DIR\n\
         #ExecStop=umount DIR\n\
         ExecStop={run} detach {name}\n\
         TimeoutStopSec=2min\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target",
        title = pool.replace('%', "%%").replace('\\', "\\\\"),
        mounts = quote(dir),
    )
}

/// A part of the name of a unit; `@` would have a meaning there.
fn unit_part(name: &str) -> String {
    name.replace('@', ":")
}

/// A word: specifiers begin with a percent sign, and quotes group it.
fn quote(word: &str) -> String {
    let word = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-%".contains(c);
    if word.chars().all(is_plain) { word } else { format!("\"{word}\"") }
}

/// The program of a command. Variables are not replaced there, and quotes not allowed; where it has
/// some it is the argument of another one.
fn executable(path: &str) -> String {
    if path.contains(['"', '\'', '\\']) {
        return format!("/usr/bin/env {}", argument(path));
    }
    quote(path)
}

/// A word of a command, in which they are.
fn argument(word: &str) -> String {
    quote(&word.replace('$', "$$"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive() {
        assert_eq!(quote("/a/b-c.d"), "/a/b-c.d");
        assert_eq!(argument("/a b/$x%\"\\'"), r#""/a b/$$x%%\"\\'""#);
        assert_eq!(executable("/a$b"), "\"/a$b\"");
        assert_eq!(executable("/it's $"), "/usr/bin/env \"/it's $$\"");
        let text = units("/bin/cowctl", "/p.cow", "p", "vm@a");
        assert!(
            text.contains("RequiresMountsFor=/\n") && text.contains("system/cow-p-vm:a.service")
        );
    }
}
