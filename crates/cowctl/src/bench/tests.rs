use super::load::{Ask, Load, Pattern};
use super::report::median;
use super::spec::{Limit, Spec};
use crate::args::{Cli, Command};
use clap::Parser;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn parse(args: &[&str]) -> Result<Spec, String> {
    let line = ["cowctl", "bench", "dir"].iter().chain(args);
    let cli = Cli::try_parse_from(line).map_err(|error| error.to_string())?;
    let Command::Bench(args) = cli.command else { return Err("another verb".into()) };
    Spec::new(&args).map_err(|failure| {
        assert_eq!(failure.exit_code(), 2, "{failure}");
        failure.to_string()
    })
}

fn load(args: &[&str]) -> Load {
    Load::new(&parse(args).unwrap(), 1, Arc::default()).unwrap()
}

#[test]
fn bad_loads_are_refused_by_name() {
    for (args, word) in [
        (&["--bs", "0"][..], "--bs 0"),
        (&["--bs", "6000"], "--bs 6000"),
        (&["--bs", "32M"], "--bs"),
        (&["--bs", "x"], "--bs"),
        (&["--qd", "0"], "--qd 0"),
        (&["--jobs", "0"], "--jobs 0"),
        (&["--qd", "4000000000", "--jobs", "4000000000"], "--jobs"),
        (&["--qd", "4096", "--bs", "1M"], "4096 requests"),
        (&["--size", "4095"], "--size 4095"),
        (&["--size", "8k", "--jobs", "3"], "--size"),
        (&["--ops", "0"], "--ops 0"),
        (&["--ops", "5", "--runtime", "1"], "--runtime"),
        (&["--runtime", "0"], "--runtime"),
        (&["--rounds", "0"], "--rounds 0"),
        (&["--rw", "randread", "--fdatasync", "1"], "--fdatasync"),
        (&["--fresh"], "--fresh"),
        (&["--fresh", "--rw", "write", "--snapshot"], "--snapshot"),
        (&["--rwmixread", "101"], "--rwmixread"),
        (&["--rw", "shuffle"], "shuffle"),
    ] {
        let error = parse(args).expect_err(&format!("{args:?}"));
        assert!(error.contains(word), "{args:?}: {error}");
    }
}

#[test]
fn what_is_not_said_is_by_default() {
    let spec = parse(&[]).unwrap();
    assert_eq!((spec.bs, spec.lanes(), spec.rounds, spec.size_bytes()), (4096, 32, 1, 1 << 30));
    let (ramp, runtime) = (Duration::from_secs(1), Duration::from_secs(10));
    assert_eq!(spec.limit, Limit::Time { ramp, runtime });
    assert_eq!(parse(&["--vs-raw"]).unwrap().rounds, 3);
    // What does not fill a request is left out.
    assert_eq!(parse(&["--bs", "12k", "--size", "1M"]).unwrap().size_bytes(), 85 * 12288);
    let fresh =
        parse(&["--rw", "seqwrite", "--fresh", "--bs", "1M", "--size", "10M", "--jobs", "3"]);
    assert_eq!(fresh.unwrap().limit, Limit::Ops(9), "three jobs with 3 MiB each");
}

#[test]
fn so_many_requests_are_made_and_counted() {
    let mut load = load(&["--rw", "randrw", "--ops", "1000", "--qd", "4", "--size", "1M"]);
    let now = Instant::now();
    let mut asked = (0, 0);
    let mut ended = [false; 4];
    for turn in 0.. {
        let lane = turn % 4;
        match load.turn(lane, now) {
            Some(Ask::Read(at)) => asked.0 += u64::from(at.is_multiple_of(4096) && at < 1 << 20),
            Some(Ask::Write(at)) => asked.1 += u64::from(at.is_multiple_of(4096) && at < 1 << 20),
            Some(Ask::Flush) => panic!("nobody wanted one"),
            None => ended[lane] = true,
        }
        if ended == [true; 4] {
            break;
        }
    }
    let tally = load.tally();
    assert_eq!((tally.reads, tally.writes), asked);
    assert_eq!((tally.ops(), tally.all_ns().unwrap().len()), (1000, 1000));
    assert!((600..800).contains(&asked.0), "70 percent are reads: {asked:?}");
}

#[test]
fn a_lane_flushes_after_its_writes_and_the_flush_is_in_the_latency() {
    let mut load = load(&["--fdatasync", "2", "--ops", "4", "--qd", "1"]);
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut flushes = Vec::new();
    for ms in 0..7 {
        flushes.push(load.turn(0, at(ms)) == Some(Ask::Flush));
    }
    assert_eq!(flushes, [false, false, true, false, false, true, false]);
    let tally = load.tally();
    assert_eq!((tally.writes, tally.flushes, tally.write_ns.len()), (4, 2, 4));
    let ms = |quantile| tally.write_ns.value_at_quantile(quantile) / 990_000;
    assert_eq!((ms(0.25), ms(1.0)), (1, 2), "a write, and a write with its flush");
}

#[test]
fn jobs_of_a_sequential_load_have_parts_of_their_own() {
    let mut load =
        load(&["--rw", "read", "--jobs", "2", "--qd", "2", "--ops", "12", "--size", "16k"]);
    let now = Instant::now();
    let mut seen = Vec::new();
    for turn in 0..12 {
        if let Some(Ask::Read(at)) = load.turn(turn % 4, now) {
            seen.push(at / 4096);
        }
    }
    assert_eq!(seen, [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]);
}

#[test]
fn a_fresh_volume_is_written_once() {
    let mut load = load(&["--rw", "write", "--fresh", "--qd", "1", "--size", "40k"]);
    let now = Instant::now();
    let asked: Vec<_> = std::iter::from_fn(|| load.turn(0, now)).collect();
    assert_eq!(asked, (0..10).map(|block| Ask::Write(block * 4096)).collect::<Vec<_>>());
}

#[test]
fn what_comes_before_the_count_does_not_count() {
    let stop = Arc::new(AtomicBool::new(false));
    let spec = parse(&["--qd", "1"]).unwrap();
    let mut load = Load::new(&spec, 1, stop.clone()).unwrap();
    let now = Instant::now();
    for _ in 0..5 {
        assert!(load.turn(0, now).is_some());
    }
    load.count_from(now);
    assert!(load.turn(0, now).is_some());
    assert!(load.turn(0, now + Duration::from_secs(11)).is_none(), "its time is over");
    assert_eq!(load.tally().writes, 2);
    let mut load = Load::new(&spec, 1, stop.clone()).unwrap();
    stop.store(true, Ordering::Relaxed);
    assert!(load.turn(0, now).is_none(), "it was told to stop");
}

#[test]
fn no_two_blocks_are_equal_and_none_is_zeros() {
    let mut pattern = Pattern::new(8192);
    let mut seen = BTreeSet::new();
    for _ in 0..100 {
        let mut buf = vec![0; 8192];
        pattern.fill(&mut buf);
        seen.extend(buf.chunks(4096).map(<[u8]>::to_vec));
    }
    assert_eq!(seen.len(), 200);
    assert!(!seen.contains(&vec![0; 4096]));
}

#[test]
fn medians() {
    assert_eq!(median(vec![]), None);
    assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
}
