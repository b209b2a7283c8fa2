//! The scenarios on the real engine.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod scenarios;

use cowstore::{CreateOptions, Error, OpenOptions, Pool};
use scenarios::Backend;
use std::path::Path;

struct Real;

impl Backend for Real {
    fn create(&self, path: &Path, options: &CreateOptions) -> Result<Pool, Error> {
        Pool::create(path, options)
    }

    fn open(&self, path: &Path, options: &OpenOptions) -> Result<Pool, Error> {
        Pool::open(path, options)
    }
}

scenarios::tests!(Real);
