//! Files that are written while something else happens.

use std::fs::{self, File};
use std::io::Write;
use std::process::{Child, Command, Stdio};

/// Writes a file, and has it durable.
pub fn write_synced(path: &str, bytes: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).and_then(|()| file.sync_all()).unwrap();
}

/// Writes to a file system until it is told not to.
pub struct Load {
    shell: Child,
}

impl Load {
    /// In that directory.
    pub fn start(dir: &str) -> Self {
        let script = format!(
            "cd {dir} && n=0; while test -e go; do n=$((n+1)); head -c 300000 /dev/urandom > load || exit 0; \
             mv load moved$((n%7)); test $((n%3)) = 0 && sync -f go; done; true"
        );
        fs::write(format!("{dir}/go"), "").unwrap();
        let mut shell = Command::new("sh");
        let shell = shell.args(["-c", &script]).stdin(Stdio::null()).stderr(Stdio::null());
        let shell = shell.spawn().unwrap();
        Self { shell }
    }

    /// Ends it, which must have gone well until now.
    #[track_caller]
    pub fn stop(mut self, dir: &str) {
        fs::remove_file(format!("{dir}/go")).unwrap();
        assert!(self.shell.wait().unwrap().success());
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
