//! The project's chores: `cargo xtask test`, `ci`, `counts`, `tidy`, `campaign`, `invariants`, `mutants` and
//! `fuzz`.
//!
//! What a chore needs from the machine it finds or installs by itself, so that a clean checkout on a
//! new machine needs one command. Nothing here is linked into the product.
#![forbid(unsafe_code)]

mod campaign;
mod ci;
mod counts;
mod fuzz;
mod guest;
mod invariants;
mod metadata;
mod mutants;
mod process;
mod summary;
mod testrun;
mod tidy;
mod tools;
mod venv;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <command>

  test [--skip-missing-tools] [args]   install the clients that the tests need, build once, run every test;
                                       args go to `cargo test`
       --skip-missing-tools            install nothing; tests whose clients are missing skip themselves
  ci   [--skip-missing-tools]          test, then counts, format, lints and tidy
  counts [--record]                    instructions of the steps of the hot path, beside benches/counts.json; or writes that
  campaign [--minutes N] [--seed S] [--resume FILE] [--threads T]
                                       crashes, failures and swarm runs in the simulator, for so long
  invariants [--only MUTANT]           plants every fault, runs what should find it, writes docs/invariants.md
  mutants [--shard K/N] [--crate NAME] [--output DIR] [--list]
                                       changes the code in small ways and lists what no test notices; with the
                                       same DIR (target/mutants) what was noticed before is not tried again
  fuzz [TARGET...] [--minutes N | --seconds N] [--minimise]
                                       the fuzz targets, ten minutes each unless told otherwise; or few inputs
                                       of those that were found go to those that are kept
  tidy                                 arrows between crates, module circles, licences, sizes, words
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.split_first() {
        Some((command, rest)) => match command.as_str() {
            "test" => testrun::run(rest),
            "campaign" => campaign::run(rest),
            "invariants" => invariants::run(rest),
            "mutants" => mutants::run(rest),
            "ci" => ci::run(rest),
            "counts" => counts::run(rest),
            "fuzz" => fuzz::run(rest),
            "tidy" if rest.is_empty() => tidy::run(),
            "help" | "--help" | "-h" => {
                print!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            _ => return usage(),
        },
        None => return usage(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprint!("{USAGE}");
    ExitCode::from(2)
}
