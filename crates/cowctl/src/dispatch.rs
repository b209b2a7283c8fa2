//! From the command line to the verb.

use crate::args::{Cli, Command, PoolCommand};
use crate::commands::{
    check, diff, dump, list, pool, props, repair, roots, scrub, snapshot, space, transfer, tree,
    volume,
};
use crate::failure::Failure;
use crate::{attach, bench, demo, doctor, freeze, mount, serve};
use std::path::PathBuf;

/// Carries out what the command line asks for.
pub fn run(cli: Cli) -> Result<(), Failure> {
    let pool = cli.pool;
    let path = || -> Result<PathBuf, Failure> {
        pool.clone().filter(|path| !path.as_os_str().is_empty()).ok_or_else(|| {
            Failure::Usage("which pool? Name it with -p PATH or in COWCTL_POOL".into())
        })
    };
    match cli.command {
        Command::Doctor(args) => doctor::run(pool.as_deref(), &args),
        Command::Bench(args) => bench::run(pool.as_deref(), &args),
        Command::Demo(args) => demo::run(&args),
        Command::Pool(PoolCommand::Create(args)) => pool::create(&path()?, &args),
        Command::Pool(PoolCommand::Info(args)) => pool::info(&path()?, &args),
        Command::Pool(PoolCommand::Grow(args)) => pool::grow(&path()?, &args),
        Command::Pool(PoolCommand::Trim(args)) => pool::trim(&path()?, &args),
        Command::Pool(PoolCommand::Set(args)) => pool::set(&path()?, args),
        Command::Create(args) => volume::create(&path()?, args),
        Command::Import(args) => transfer::import(&path()?, args),
        Command::Export(args) => transfer::export(&path()?, &args),
        Command::Snapshot(args) => snapshot::take(&path()?, args),
        Command::Rollback(args) => snapshot::rollback(&path()?, args),
        Command::Undo(args) => snapshot::undo(&path()?, args),
        Command::Clone(args) => volume::clone(&path()?, args),
        Command::Delete(args) => volume::delete(&path()?, args),
        Command::Prune(args) => volume::prune(&path()?, args),
        Command::Hold(args) => props::hold(&path()?, args, true),
        Command::Release(args) => props::hold(&path()?, args, false),
        Command::Rename(args) => volume::rename(&path()?, args),
        Command::Resize(args) => volume::resize(&path()?, args),
        Command::Set(args) => props::set(&path()?, args),
        Command::Get(args) => props::get(&path()?, &args),
        Command::List(args) => list::list(&path()?, &args),
        Command::Tree(args) => tree::tree(&path()?, &args),
        Command::Space(args) => space::space(&path()?, &args),
        Command::Diff(args) => diff::diff(&path()?, &args),
        Command::Check(args) if args.repair => repair::repair(&path()?, &args),
        Command::Check(args) => check::check(&path()?, &args),
        Command::Scrub(args) => scrub::scrub(&path()?, &args),
        Command::Dump(args) => dump::dump(&path()?, &args),
        Command::Root(args) => roots::root(&path()?, &args),
        // Both may name their pools themselves.
        Command::Verify(args) => roots::verify(path().ok().as_deref(), &args),
        Command::Serve(args) => serve::run(&path()?, &args),
        Command::Attach(args) => attach::attach(&path()?, &args),
        Command::Detach(args) => attach::detach(&path()?, &args),
        Command::Attachments(args) => attach::list(&path()?, &args),
        Command::AttachFollow => attach::follow(&path()?),
        Command::Mount(args) => mount::run(&path()?, &args),
        Command::Umount(args) => mount::umount(&args),
        Command::FreezeGuard(args) => freeze::guard(&args),
    }
}
