//! A machine that boots with a volume as its disk.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::{Guest, GuestFiles, Initramfs, Place, Server, pattern, run_ok, wait_until};
use std::fs;
use std::path::PathBuf;

/// A machine whose disk is a volume that is served; and the root that it has in memory.
struct Machine<'a> {
    files: &'a GuestFiles,
    initramfs: PathBuf,
    disk: Vec<String>,
}

impl Machine<'_> {
    fn boot(&self) -> Guest {
        Guest::boot(self.files, &self.initramfs, 256, &self.disk)
    }
}

/// An ext4 file system of `mib` with some files and the list of their hashes, as an image.
fn image(place: &Place, mib: u32) -> String {
    let tree = place.path("tree");
    fs::create_dir_all(tree.join("files")).unwrap();
    for n in 0..25 {
        let name = format!("files/file{n}");
        fs::write(tree.join(&name), pattern(n, 9_000 * n as usize + 1)).unwrap();
    }
    let sums = run_ok(&["sh", "-c", &format!("cd {} && sha256sum files/*", tree.display())]);
    fs::write(tree.join("sums"), sums).unwrap();
    let (image, size) = (place.text("disk.raw"), format!("{mib}M"));
    run_ok(&["mke2fs", "-q", "-t", "ext4", "-d", tree.to_str().unwrap(), &image, &size]);
    image
}

/// Words as a shell takes them apart.
fn words(text: &str) -> Vec<String> {
    let script = format!("printf '%s\\n' {text}");
    run_ok(&["sh", "-c", &script]).lines().map(str::to_owned).collect()
}

#[test]
fn a_guest_is_rolled_back_and_finds_its_old_state() {
    let Some(files) = GuestFiles::find(&["mke2fs", "e2fsck"]) else { return };
    let mut place = Place::new();
    let initramfs = place.path("initramfs");
    Initramfs::new(&files, &["virtio_pci", "virtio_blk"]).write(&initramfs);
    // What is printed for QEMU, by way of a shell, whatever the path.
    let odd = place.path("it's \"a,b\" $x");
    fs::create_dir(&odd).unwrap();
    place.set_pool(odd.join("pool.cow"));
    place.ok(&["pool", "create", "--size", "512M"]);
    place.ok(&["import", &image(&place, 48), "vm"]);
    let server = Server::start(&place, &[]);
    let disk = words(&place.ok(&["attach", "--print", "qemu", "vm"]));
    let mut machine = Machine { files: &files, initramfs, disk };

    let mut guest = machine.boot();
    guest.ok("mount -o discard /dev/vda /mnt && cd /mnt && sha256sum -c -s sums");
    guest.ok("for n in $(seq 30); do dd if=/dev/urandom of=new$n bs=7777 count=$n 2>&1 | grep -q out || break; done");
    guest.ok("sha256sum new* files/* > sums && sync");
    let sums = guest.ok("cat sums");
    assert_eq!(sums.lines().filter(|line| !line.is_empty()).count(), 55, "{sums}");
    // What is discarded, or filled with zeros, takes no space in the pool.
    let data = || {
        place.json("list", &["list"]);
        place.info("data_bytes")
    };
    let before = data();
    guest.ok("dd if=/dev/zero of=zeros bs=1M count=10 conv=fsync 2>/dev/null");
    assert!(data() < before + (2 << 20), "zeros");
    guest.ok("dd if=/dev/urandom of=noise bs=1M count=10 conv=fsync 2>/dev/null");
    assert!(data() > before + (8 << 20), "noise");
    guest.ok("rm zeros noise && sync && fstrim /mnt && sync");
    assert!(data() < before + (2 << 20), "discarded");
    // Under load: what was synced is in it, whatever else is.
    guest.ok("while true; do dd if=/dev/zero of=load bs=64k count=20 conv=fsync 2>/dev/null; done & until test -s load; do :; done");
    place.ok(&["snapshot", "vm@before"]);
    guest.ok("kill %1 && rm -rf files && echo broken > new7 && rm new1 load && sync");
    assert_ne!(guest.run("sha256sum -c -s sums").0, 0, "the damage is seen");
    assert!(place.fails(4, &["rollback", "vm@before"]).contains("vm"), "it has the disk open");
    guest.kill();
    wait_until("the server to notice", || place.row("vm")["writers"] == 0);
    place.ok(&["rollback", "vm@before"]);

    machine.disk.extend(words(&place.ok(&["attach", "--print", "qemu", "vm@before"])));
    let mut guest = machine.boot();
    guest.ok("mount /dev/vda /mnt && cd /mnt && sha256sum -c -s sums");
    assert_eq!(guest.ok("cat sums").trim(), sums.trim());
    // ext4 found a journal to replay, and nothing else.
    let said = guest.ok("dmesg | grep -i ext4");
    assert!(said.contains("mounted filesystem") && !said.contains("error"), "{said}");
    guest.ok("cd / && umount /mnt");
    // The snapshot beside it, every byte, and it cannot be written.
    let raw = place.text("snapshot.raw");
    place.ok(&["export", "vm@before", &raw]);
    let hash = run_ok(&["md5sum", &raw]);
    assert_eq!(guest.ok("md5sum < /dev/vdb")[..32], hash[..32]);
    assert_ne!(guest.run("echo > /dev/vdb").0, 0);
    guest.power_off();
    server.stop();
    place.ok(&["export", "vm", &place.text("after.raw")]);
    run_ok(&["e2fsck", "-fn", &place.text("after.raw")]);
    place.ok(&["check"]);
}
