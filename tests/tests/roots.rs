//! Content roots: one image in two pools by different ways, and what `verify` finds.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::{Client, Place, Server, sparse_image};

const MIB: usize = 1 << 20;

#[test]
fn two_ways_to_one_content() {
    let mut place = Place::with_pool();
    let (first, second) = (place.text("pool.cow"), place.text("other.cow"));
    let image = place.path("image.raw");
    sparse_image(&image, 5, 24 * MIB + 512);
    let image = image.to_str().unwrap().to_owned();
    place.ok(&["import", &image, "vm"]);
    place.ok(&["snapshot", "vm@s"]);
    let root = place.ok(&["root", "vm@s"]);
    assert_eq!(root.trim().len(), 64, "{root}");
    assert_eq!(place.ok(&["root", "vm"]), root, "the volume is what its snapshot is");
    let told = place.json("root", &["root", "vm@s"]);
    assert_eq!(
        (&told["root"], &told["size_bytes"]),
        (&root.trim().into(), &(24 * MIB + 512).into())
    );

    // The other one: larger and otherwise filled before, by a server, and renamed on the way.
    place.set_pool(&second);
    place.ok(&["pool", "create", "--size", "512M"]);
    place.ok(&["create", "disk", "--size", "40M"]);
    let server = Server::start(&place, &[]);
    let mut client = Client::connect(&server.socket(), "disk").unwrap();
    client.write(3 * MIB as u64, &[9; 8192]).unwrap();
    client.flush().unwrap();
    client.leave().unwrap();
    place.ok(&["snapshot", "disk@before"]);
    place.ok(&["resize", "disk", "--size", &(24 * MIB + 512).to_string(), "--force"]);
    place.ok(&["import", &image, "disk", "--into"]);
    place.ok(&["rename", "disk", "machine"]);
    place.ok(&["snapshot", "machine@s"]);
    assert_eq!(place.ok(&["root", "machine@s"]), root, "through the control socket");
    let far = format!("{first}/vm@s");
    assert_eq!(place.ok(&["verify", "machine@s", &far]), "");

    let mut client = Client::connect(&server.socket(), "machine").unwrap();
    client.write(7 * MIB as u64 + 5 * 4096, &[1; 512]).unwrap();
    client.flush().unwrap();
    client.leave().unwrap();
    place.ok(&["snapshot", "machine@t"]);
    let run = place.run(&["verify", "machine@t", "vm@s", "--other", &first]);
    let want = format!("{} 4096\n", 7 * MIB + 5 * 4096);
    assert_eq!((run.code, run.stdout.as_str()), (1, want.as_str()), "{}", run.stderr);
    let run = place.run(&["verify", "machine@s", "machine@t", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((run.code, &value["equal"]), (1, &false.into()), "{value}");
    assert_eq!(value["differences"][0]["offset"], 7 * MIB + 5 * 4096);
    place.fails(3, &["verify", "machine@s", "machine@none"]);
    place.fails(3, &["root", "none"]);
    server.stop();
    assert_eq!(place.ok(&["root", "machine@s"]), root, "stored, and read by another process");
}
