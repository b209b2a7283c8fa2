//! Volumes as block devices in a guest: what its kernel has and ours may lack, and root with all that
//! root may do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::{Guest, GuestFiles, Initramfs, Place, cowctl, path_of};

/// A guest with a pool of two volumes.
struct Machine {
    guest: Guest,
    /// To put the module nbd where `modprobe` finds it.
    install: String,
    _place: Place,
}

fn machine() -> Option<Machine> {
    let programs = ["mkfs.ext4", "resize2fs", "e2fsck"];
    let files = GuestFiles::find(&programs)?;
    let place = Place::new();
    let path = place.path("initramfs");
    let mut root = Initramfs::new(&files, &["loop", "fuse"]);
    let modules = root.carry(&files, &["nbd"]);
    let install = format!(
        "D=/lib/modules/$(uname -r); mkdir -p $D && cp {} $D && echo nbd.ko: > $D/modules.dep",
        modules.join(" ")
    );
    assert_eq!(modules.len(), 1, "it needs no other: {modules:?}");
    root.program_as(&cowctl(), "/bin/cowctl");
    for program in programs {
        root.program_as(&path_of(program), &format!("/usr/sbin/{program}"));
    }
    root.write(&path);
    let mut guest = Guest::boot(&files, &path, 1024, &[]);
    guest.ok("mount -t tmpfs tmp /tmp && export COWCTL_POOL=/tmp/pool.cow");
    guest.ok("cowctl pool create --size 256M && cowctl create vm --size 24M");
    Some(Machine { guest, install, _place: place })
}

impl Machine {
    /// A line of shell, which must succeed; what it said, without the line's end.
    #[track_caller]
    fn ok(&mut self, line: &str) -> String {
        self.guest.ok(line).trim().to_owned()
    }

    /// A line of shell, which must end with `code`; what it said.
    #[track_caller]
    fn fails(&mut self, code: i32, line: &str) -> String {
        let (found, said) = self.guest.run(line);
        assert_eq!(found, code, "{line}: {said}");
        said
    }

    /// The process that has the pool.
    #[track_caller]
    fn server(&mut self) -> String {
        self.ok(r#"sed 's/.*"pid":\([0-9]*\).*/\1/' /run/cow/*.json"#)
    }

    /// Serving a block device, all of this process's threads say so (the flag `PF_MEMALLOC_NOIO`, which
    /// `PR_SET_IO_FLUSHER` sets), and its memory stays.
    #[track_caller]
    fn protected(&mut self, server: &str) {
        let flags = self.ok(&format!("cut -d ' ' -f 9 /proc/{server}/task/*/stat"));
        assert!(flags.lines().count() > 3, "{flags}");
        let is_flusher = |flags: &str| flags.parse::<u64>().unwrap() & 0x0008_0000 != 0;
        assert!(flags.lines().all(is_flusher), "{flags}");
        assert!(!self.ok(&format!("grep VmLck /proc/{server}/status")).ends_with(" 0 kB"));
    }

    /// How many blocks of 1 KiB the file system at /mnt has.
    #[track_caller]
    fn blocks(&mut self) -> u64 {
        self.ok("df -k /mnt | tail -n 1 | awk '{print $2}'").parse().unwrap()
    }
}

#[test]
fn the_kernels_own_nbd_attaches_a_volume() {
    let Some(mut m) = machine() else { return };
    let text = m.fails(1, "cowctl attach --as nbd vm");
    assert!(text.contains("module nbd is not there") && text.contains("loop device"), "{text}");
    m.ok("cowctl check");
    let install = m.install.clone();
    m.ok(&install);
    assert!(m.fails(3, "cowctl attach --as nbd nothing").contains("no such volume: nothing"));
    // What was started for that has ended.
    m.ok("cowctl check");

    assert_eq!(m.ok("cowctl attach --as nbd vm 2>/dev/null"), "/dev/nbd0");
    assert_eq!(m.ok("readlink /dev/cow/pool/vm"), "/dev/nbd0");
    m.ok("cd /sys/block/nbd0/queue");
    assert_eq!(m.ok("cat logical_block_size write_cache fua"), "4096\nwrite back\n1");
    assert_ne!(m.ok("cat discard_max_bytes"), "0");
    m.ok("cd /");
    // Two processors, two connections.
    assert!(m.ok("cowctl list vm --json").contains("\"writers\": 2"));
    assert!(m.fails(4, "cowctl attach --as nbd vm").contains("attached already: /dev/nbd0"));
    assert!(m.fails(4, "cowctl attach vm").contains("/dev/nbd0"));

    m.ok("mkfs.ext4 -q /dev/nbd0 && mount /dev/nbd0 /mnt");
    m.ok("for n in $(seq 20); do head -c ${n}0000 /dev/urandom > /mnt/file$n; done");
    m.ok("cd /mnt && md5sum file* > sums && cd / && sync");
    m.ok("cowctl snapshot vm@a");
    let text = m.fails(4, "cowctl detach vm");
    assert!(text.contains("in use") && text.contains("umount /mnt"), "{text}");
    m.fails(4, "cowctl rollback vm@a");
    // A snapshot beside it, and what is discarded.
    assert_eq!(m.ok("cowctl attach --as nbd vm@a 2>/dev/null"), "/dev/nbd1");
    assert_eq!(m.ok("cat /sys/block/nbd1/ro"), "1");
    m.fails(1, "dd if=/dev/zero of=/dev/nbd1 bs=4096 count=1 conv=fsync");
    m.ok("cowctl export vm@a /tmp/a");
    m.ok("test $(md5sum < /dev/nbd1 | head -c 32) = $(md5sum < /tmp/a | head -c 32) && rm /tmp/a");
    m.ok("head -c 4m /dev/urandom > /mnt/large && sync");
    let data = r#"cowctl pool info --json | sed -n 's/.*"data_bytes": \([0-9]*\).*/\1/p'"#;
    let full: u64 = m.ok(data).parse().unwrap();
    m.ok("rm /mnt/large && sync && fstrim /mnt && sync && cowctl list > /dev/null");
    let freed: u64 = m.ok(data).parse().unwrap();
    assert!(full - freed > 3 << 20, "{full} {freed}");
    // It grows while it is mounted.
    let before = m.blocks();
    m.ok("cowctl resize vm --size 40M");
    assert_eq!(m.ok("blockdev --getsize64 /dev/nbd0"), (40_u64 << 20).to_string());
    m.ok("resize2fs /dev/nbd0");
    assert!(m.blocks() > before + (12 << 10));
    // It is renamed while it is mounted, its snapshot with it, and another one has its name.
    m.ok("cowctl rename vm web && cowctl create vm --size 1M && cowctl rename web@a web@b");
    assert_eq!(
        m.ok("cd /dev/cow/pool && readlink web && readlink web@b && ls -1 && cd /"),
        "/dev/nbd0\n/dev/nbd1\nweb\nweb@b"
    );
    assert!(m.ok("cowctl attachments -H").contains("web\t/dev/nbd0"));
    assert!(m.fails(3, "cowctl detach vm").contains("not attached"));
    m.ok("cowctl delete vm && cowctl rename web vm && cowctl rename vm@b vm@a");
    assert_eq!(m.ok("ls -1 /dev/cow/pool"), "vm\nvm@a");
    // More than it had room for.
    m.ok("head -c 22m /dev/zero > /mnt/large && sync && cd /mnt && md5sum -c -s sums && cd /");

    // Its server does not leave it at the first word.
    let server = m.server();
    m.protected(&server);
    m.ok(&format!(
        "kill -TERM {server}; until grep 'ask again' /run/cow/*.log; do sleep 0.1; done"
    ));
    m.ok("dd if=/dev/nbd0 of=/dev/null bs=4096 count=8 iflag=direct");
    // Another by way of FUSE and a loop device, of the same process.
    m.ok("cowctl clone vm@a twin && cowctl attach twin 2>/dev/null && cowctl detach twin");
    m.ok(&format!("test -e /proc/{server}"));
    m.ok("umount /mnt && cowctl detach vm && cowctl detach vm@a");
    // It has let go of the pool; until it has ended takes a moment.
    m.ok(&format!("while test -e /proc/{server}/exe; do sleep 0.1; done"));
    assert_eq!(m.ok("cowctl attachments -H; ls -A /dev/cow; test ! -e /sys/block/nbd0/pid"), "");
    m.ok("cowctl check && cowctl export vm /tmp/x && e2fsck -fn /tmp/x && rm /tmp/x");
    m.guest.power_off();
}

#[test]
fn a_killed_server_leaves_an_nbd_device_that_is_freed() {
    let Some(mut m) = machine() else { return };
    let install = m.install.clone();
    m.ok(&install);
    m.ok("cowctl attach --as nbd vm 2>/dev/null && mkfs.ext4 -q /dev/nbd0 && mount /dev/nbd0 /mnt");
    m.ok("head -c 3m /dev/urandom > /mnt/kept && md5sum < /mnt/kept > /tmp/sum && sync");
    let server = m.server();
    m.ok(&format!("kill -KILL {server}; while test -e /proc/{server}; do sleep 0.1; done"));
    assert!(m.ok("cowctl attachments -H").contains("\tdead\t/mnt"));
    // No hang: what is asked of it fails.
    m.fails(1, "dd if=/dev/zero of=/mnt/more bs=64k count=1 conv=fsync");
    let text = m.fails(4, "cowctl detach vm");
    assert!(text.contains("has died") && text.contains("umount /mnt"), "{text}");
    assert!(m.fails(4, "cowctl attach --as nbd vm").contains("has died"));
    m.ok("umount /mnt");
    // The next one frees it, and uses it again.
    let text = m.ok("cowctl attach --as nbd vm");
    assert!(text.contains("/dev/nbd0 had died; the device is freed"), "{text}");
    assert!(text.ends_with("/dev/nbd0"), "{text}");
    m.ok("mount /dev/nbd0 /mnt && test \"$(md5sum < /mnt/kept)\" = \"$(cat /tmp/sum)\"");
    m.ok("umount /mnt && cowctl detach vm && cowctl check");

    // `cowctl serve` does it too, and stays when that has ended.
    m.ok("cowctl serve > /tmp/ready 2> /tmp/log & until test -s /tmp/ready; do sleep 0.1; done");
    m.ok("cowctl attach --as nbd vm");
    let server = m.server();
    m.protected(&server);
    let stop =
        format!("kill -TERM {server}; until grep '/dev/nbd0; ask' /tmp/log; do sleep 0.1; done");
    m.ok(&stop);
    m.ok(&format!("cowctl detach vm && kill -TERM {server} && wait && cowctl check"));
    m.guest.power_off();
}

#[test]
fn fuse_and_loop_with_all_that_root_may_do() {
    let Some(mut m) = machine() else { return };
    assert_eq!(m.ok("cowctl attach vm 2>/dev/null"), "/dev/loop0");
    let server = m.server();
    m.protected(&server);
    assert!(!m.ok("cat /run/cow/*.log").contains("CAP_SYS_RESOURCE"));
    m.ok("mkfs.ext4 -q /dev/loop0 && mount /dev/loop0 /mnt && echo kept > /mnt/kept && sync");
    let before = m.blocks();
    m.ok("cowctl resize vm --size 40M && resize2fs /dev/loop0");
    assert!(m.blocks() > before + (12 << 10));
    m.ok("head -c 22m /dev/zero > /mnt/large && sync && grep kept /mnt/kept");
    m.ok("umount /mnt && e2fsck -fn /dev/loop0 && cowctl detach vm && cowctl check");
    m.guest.power_off();
}
