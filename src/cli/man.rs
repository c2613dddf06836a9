//! `trackd man`: the manual, made from what it is about: trackd(1) and a page a subcommand from the command line's own
//! help texts, trackd.toml(5) from `docs/configuration.md`, which a test ties to the keys there are.

mod markdown;

use super::{Cli, Failure};
use clap::CommandFactory;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use std::io::Write;
use std::path::{Path, PathBuf};

const CONFIGURATION: &str = include_str!("../../docs/configuration.md");
const MANUAL: &str = "trackd";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Write all pages into this directory; without it, trackd(1) to stdout.
    dir: Option<PathBuf>,
}

pub(super) fn man(args: Args) -> Result<(), Failure> {
    let Some(dir) = args.dir else {
        return Ok(std::io::stdout().lock().write_all(&program()?)?);
    };
    let put = |name: &str, page: &[u8]| {
        let path = dir.join(name);
        std::fs::write(&path, page).map_err(|error| failed(&path, &error))
    };
    clap_mangen::generate_to(Cli::command(), &dir).map_err(|error| failed(&dir, &error))?;
    // Over what was made of it just now: it has more to say.
    put("trackd.1", &program()?)?;
    put("trackd.toml.5", configuration().as_bytes())
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::work(format!("write {}: {error}", path.display()))
}

/// trackd(1).
fn program() -> Result<Vec<u8>, Failure> {
    let man = Man::new(Cli::command().disable_help_subcommand(true)).manual(MANUAL);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    man.render_subcommands_section(&mut page)?;
    let mut rest = Roff::new();
    section(
        &mut rest,
        "EXIT STATUS",
        &[
            ("0", "it worked"),
            ("1", "the work failed"),
            ("64", "the command line is wrong"),
            ("69", "the database, or the daemon that is asked, is not there"),
            ("78", "the configuration is wrong"),
        ],
    );
    section(
        &mut rest,
        "ENVIRONMENT",
        &[
            ("TRACKD_CONFIG", "the configuration, where --config does not name it"),
            ("TRACKD_*", "every key of the configuration: trackd.toml(5)"),
            ("DATABASE_URL", "the database, where the configuration does not name it"),
        ],
    );
    section(
        &mut rest,
        "FILES",
        &[
            ("/etc/trackd/config.toml", "the configuration, where neither --config nor ./config.toml is there"),
            ("/etc/trackd/conf.d/*.toml", "laid over it, in order of their names"),
            ("/var/lib/trackd", "the service's state: the embedded database, and payloads that wait for the database"),
            ("/run/trackd/trackd.sock", "where the service answers"),
            ("/usr/share/doc/trackd/", "examples, and more to read"),
            ("/usr/share/trackd/", "alert rules for Prometheus, a dashboard for Grafana"),
        ],
    );
    section(&mut rest, "SEE ALSO", &[]);
    rest.text([
        bold("trackd.toml"),
        roman("(5), "),
        bold("systemctl"),
        roman("(1), "),
        bold("journalctl"),
        roman("(1)"),
    ]);
    rest.to_writer(&mut page)?;
    Ok(page)
}

fn section(page: &mut Roff, title: &str, list: &[(&str, &str)]) {
    page.control("SH", [title]);
    for (word, text) in list {
        page.control("TP", []);
        page.text([bold(*word)]);
        page.text([roman(*text)]);
    }
}

/// trackd.toml(5).
fn configuration() -> String {
    let mut page = Roff::new();
    let source = format!("trackd {}", env!("CARGO_PKG_VERSION"));
    page.control("TH", ["trackd.toml", "5", "", &source, MANUAL]);
    page.control("SH", ["NAME"]);
    page.text([roman("trackd.toml - what trackd follows, when, and which rows it keeps")]);
    page.control("SH", ["DESCRIPTION"]);
    markdown::write(CONFIGURATION, &mut page);
    section(&mut page, "SEE ALSO", &[]);
    page.text([bold("trackd"), roman("(1). Files that are named with .md are in /usr/share/doc/trackd/docs.")]);
    page.render()
}
