//! Flags that many verbs have.

use clap::Args;

/// How a command answers.
#[derive(Debug, Args)]
pub struct Json {
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

/// How a listing is shown.
#[derive(Debug, Args)]
pub struct Listing {
    /// For scripts: no heads, tabs between the columns
    #[arg(short = 'H')]
    pub scripts: bool,
    /// Exact numbers of bytes
    #[arg(long)]
    pub exact: bool,
    /// Columns, separated by commas
    #[arg(short = 'o', value_name = "COLUMNS", value_delimiter = ',')]
    pub columns: Vec<String>,
    /// Sort by this column (may be repeated)
    #[arg(short = 's', value_name = "COLUMN")]
    pub ascending: Vec<String>,
    /// Sort by this column, largest first (may be repeated)
    #[arg(short = 'S', value_name = "COLUMN")]
    pub descending: Vec<String>,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}
