//! The long campaign: crashes everywhere, failures of everything, and swarm runs, for as long as is
//! asked. `cargo xtask campaign` starts it.

use cow_sim::campaign::{Options, Size, run, run_for};
use cow_sim::run::{fresh_start, is_told, seeds, threads};
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "\
usage: cargo xtask campaign [--minutes N] [--seed S] [--resume FILE] [--threads T] [--slice]

  --minutes N    how long; 10 otherwise
  --seed S       the first seed; from the clock otherwise
  --resume FILE  goes on where FILE says, and keeps there what it comes to
  --threads T    seeds side by side; 2 otherwise
  --slice        as little for each seed as the test suite does

With COW_SIM_START=S COW_SIM_SEEDS=N it runs these seeds alone.
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let options = match parse(&args) {
        Ok(options) => options,
        Err(why) => {
            eprint!("campaign: {why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let failed = if is_told() { these_seeds(&options) } else { for_a_time(&options) };
    match failed {
        Ok(0) => ExitCode::SUCCESS,
        Ok(count) => {
            eprintln!("campaign: {count} seeds failed");
            ExitCode::FAILURE
        }
        Err(why) => {
            eprintln!("campaign: {why}");
            ExitCode::FAILURE
        }
    }
}

fn parse(args: &[String]) -> Result<Options, String> {
    let mut options = Options {
        time: Duration::from_secs(600),
        seed: fresh_start(),
        file: None,
        threads: threads(),
        size: Size::Long,
    };
    let mut words = args.iter();
    while let Some(word) = words.next() {
        if word == "--slice" {
            options.size = Size::Slice;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{word}: {value} is no number"));
        match word.as_str() {
            "--minutes" => options.time = Duration::from_secs(60 * number()?),
            "--seed" => options.seed = number()?,
            "--resume" => options.file = Some(value.into()),
            "--threads" => options.threads = number()?.max(1),
            _ => return Err(format!("{word} is unknown")),
        }
    }
    Ok(options)
}

fn these_seeds(options: &Options) -> Result<usize, String> {
    let mut failed = 0;
    for seed in seeds(1) {
        match run(seed, options.size) {
            Ok(tally) => println!("seed {seed}: {tally}"),
            Err(text) => {
                println!("seed {seed} FAILED: {text}");
                failed += 1;
            }
        }
    }
    Ok(failed)
}

fn for_a_time(options: &Options) -> Result<usize, String> {
    let progress = run_for(options, |line| println!("{line}"))?;
    for (seed, why) in &progress.failed {
        println!("failed seed {seed}: {}", why.lines().next().unwrap_or_default());
    }
    Ok(progress.failed.len())
}
