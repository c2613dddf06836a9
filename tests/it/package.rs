//! What of the Debian package can be told without building it; `tests/box` installs it.

use std::path::Path;

const MANIFEST: &str = include_str!("../../Cargo.toml");

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// cargo-deb puts the unit's fragments wherever the token stands, in a comment, too.
#[test]
fn each_maintainer_script_has_the_units_fragments_once_on_a_line_of_their_own() {
    for name in ["postinst", "prerm", "postrm"] {
        let script = file(&format!("deploy/debian/{name}"));
        assert!(script.starts_with("#!/bin/sh\n") && script.contains("\nset -e\n"), "{name}");
        assert_eq!(script.matches("#DEBHELPER#").count(), 1, "{name}");
        assert!(script.contains("\n#DEBHELPER#\n"), "{name}");
    }
}

#[test]
fn every_file_of_the_package_is_there_or_is_made_by_the_build() {
    let assets = MANIFEST.split_once("\nassets = [\n").unwrap().1.split_once("\n]").unwrap().0;
    let sources: Vec<&str> = assets.lines().map(|line| line.split('"').nth(1).unwrap()).collect();
    assert!(sources.len() > 15, "{sources:?}");
    for source in sources.iter().filter(|source| !source.starts_with("target/")) {
        let place = Path::new(env!("CARGO_MANIFEST_DIR")).join(source.split('*').next().unwrap());
        assert!(place.exists(), "{source}");
    }
    // Of what is made, the script that makes it says so.
    let script = file("deploy/package");
    for made in sources.iter().filter_map(|source| source.strip_prefix("target/package/")) {
        assert!(script.contains(&format!("$made/{}", made.split('/').next().unwrap())), "{made}");
    }
}

#[test]
fn the_package_has_the_version_and_the_licence_of_the_program() {
    let version = format!("trackd ({}-", env!("CARGO_PKG_VERSION"));
    assert!(file("deploy/debian/changelog").starts_with(&version), "{version}");
    let words = |text: &str| text.split_whitespace().filter(|word| *word != ".").collect::<Vec<_>>().join(" ");
    let copyright = words(&file("deploy/debian/copyright"));
    let licence = file("LICENSE");
    let terms = words(licence.split_once("Permission is hereby").unwrap().1);
    assert!(copyright.contains(&terms) && copyright.contains("/usr/share/common-licenses/Apache-2.0"), "{terms}");
}
