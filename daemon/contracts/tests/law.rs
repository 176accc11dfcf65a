//! The law of the house, held over `cargo metadata`: who may depend on whom, and what may never be linked.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells what it measured"
)]

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

/// Every crate of the workspace with its layer: a crate depends only on lower layers.
const LAYERS: &[(&str, u8)] = &[
    ("moat-contracts", 0),
    ("moat-vault", 0),
    ("moat-protocol", 1),
    ("moat-settings", 1),
    ("moat-firewall", 1),
    ("moat-catalog", 1),
    ("moat-template", 1),
    ("moat-ledger", 1),
    ("moat-bundle", 1),
    ("moat-rights", 1),
    ("moat-edge", 1),
    ("moat-tensor", 1),
    ("moat-sources", 2),
    ("moat-extract", 2),
    ("moat-curate", 2),
    ("moat-datasets", 2),
    ("moat-train", 2),
    ("moat-evaluate", 2),
    ("moat-models", 2),
    ("moat-serve", 2),
    ("moat-admin", 3),
    ("moatd", 4),
    ("moat-engine", 4),
    ("moat", 4),
];

/// Crates that open connections, or exist to.
const DIALLERS: &[&str] = &[
    "async-std",
    "attohttpc",
    "aws-config",
    "awc",
    "curl",
    "curl-sys",
    "hf-hub",
    "isahc",
    "libssh2-sys",
    "native-tls",
    "openssl",
    "openssl-sys",
    "quinn",
    "redis",
    "reqwest",
    "ssh2",
    "surf",
    "tokio-native-tls",
    "tonic",
    "trust-dns-resolver",
    "hickory-resolver",
    "tungstenite",
    "ureq",
    "websocket",
    "zmq",
];

/// Crates that only whoever listens may link: `moatd`, for its admin port.
const LISTENERS: &[&str] = &["hyper", "hyper-util", "rustls", "tokio-rustls", "warp"];

/// Features that would turn a crate we do use into one that opens connections.
const DIALLING_FEATURES: &[(&str, &[&str])] = &[
    (
        "gix",
        &[
            "blocking-network-client",
            "async-network-client",
            "blocking-http-transport-curl",
            "blocking-http-transport-reqwest",
        ],
    ),
    (
        "gix-transport",
        &["blocking-client", "async-client", "http-client", "http-client-curl", "http-client-reqwest"],
    ),
    ("gix-protocol", &["blocking-client", "async-client"]),
    ("hyper", &["client"]),
    ("hyper-util", &["client", "client-legacy", "client-proxy", "client-proxy-system"]),
    ("tokenizers", &["http", "hf-hub"]),
];

fn metadata() -> Metadata {
    MetadataCommand::new().manifest_path("../../Cargo.toml").exec().unwrap()
}

fn name<'a>(metadata: &'a Metadata, id: &PackageId) -> &'a str {
    &metadata[id].name
}

/// What a package links into its program, itself included; development dependencies are not.
fn linked<'a>(metadata: &'a Metadata, root: &str) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let resolve = metadata.resolve.as_ref().unwrap();
    let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let root = metadata.packages.iter().find(|package| package.name.as_str() == root).unwrap();
    let (mut found, mut waiting) = (BTreeMap::new(), vec![&root.id]);
    while let Some(id) = waiting.pop() {
        let node = nodes[id];
        let features = node.features.iter().map(|feature| feature.as_str()).collect();
        if found.insert(name(metadata, id), features).is_some() {
            continue;
        }
        let normal = |kind: &cargo_metadata::DepKindInfo| kind.kind == DependencyKind::Normal;
        waiting.extend(node.deps.iter().filter(|dep| dep.dep_kinds.iter().any(normal)).map(|dep| &dep.pkg));
    }
    found
}

#[test]
fn a_crate_depends_only_on_lower_layers() {
    let metadata = metadata();
    let layers: BTreeMap<_, _> = LAYERS.iter().copied().collect();
    let mut members = BTreeSet::new();
    for package in metadata.workspace_packages() {
        let own = layers.get(package.name.as_str());
        let own = own.unwrap_or_else(|| panic!("{} has no layer: give it one here", package.name));
        members.insert(package.name.as_str());
        for dependency in package.dependencies.iter().filter(|dependency| dependency.path.is_some()) {
            let other = layers[dependency.name.as_str()];
            assert!(other < *own, "{} may not depend on {}", package.name, dependency.name);
        }
    }
    assert_eq!(members, layers.keys().copied().collect(), "the layers name a crate that is not there");
}

#[test]
fn only_tensor_names_candle_and_only_three_stages_use_tensor() {
    let metadata = metadata();
    for package in metadata.workspace_packages() {
        let names: Vec<_> = package.dependencies.iter().map(|dependency| dependency.name.as_str()).collect();
        let candle = names.iter().any(|name| name.starts_with("candle") || *name == "gemm");
        assert!(!candle || package.name.as_str() == "moat-tensor", "{} names candle", package.name);
        let allowed = ["moat-train", "moat-evaluate", "moat-serve", "moat-engine"];
        let tensor = names.contains(&"moat-tensor");
        assert!(!tensor || allowed.contains(&package.name.as_str()), "{} uses tensor", package.name);
    }
    for program in ["moatd", "moat"] {
        assert!(!linked(&metadata, program).contains_key("candle-core"), "{program} links candle");
    }
}

#[test]
fn nothing_that_dials_out_is_linked() {
    let metadata = metadata();
    for program in ["moatd", "moat-engine", "moat"] {
        let linked = linked(&metadata, program);
        assert!(linked.len() > 20, "{program}'s dependencies were not found");
        for dialler in DIALLERS {
            assert!(!linked.contains_key(dialler), "{program} links {dialler}");
        }
        for listener in LISTENERS {
            let may = program == "moatd";
            assert!(may || !linked.contains_key(listener), "{program} links {listener}");
        }
        for (name, features) in DIALLING_FEATURES {
            for feature in *features {
                let on = linked.get(name).is_some_and(|on| on.contains(feature));
                assert!(!on, "{program} links {name} with feature {feature}");
            }
        }
    }
}

#[test]
fn every_version_stands_once_in_the_workspace() {
    for entry in std::fs::read_dir("..").unwrap() {
        let manifest = entry.unwrap().path().join("Cargo.toml");
        let Ok(text) = std::fs::read_to_string(&manifest) else { continue };
        let sections = text.split("dependencies]\n").skip(1);
        for line in sections.flat_map(|text| text.lines().take_while(|line| !line.starts_with('['))) {
            let named = line.contains('=') && !line.trim_start().starts_with('#');
            let inherited = line.contains("workspace = true");
            assert!(
                !named || inherited || line.contains("[]"),
                "{}: `{line}` has a version of its own",
                manifest.display()
            );
        }
    }
}

#[test]
fn every_crate_opens_with_its_page_and_forbids_what_the_workspace_forbids() {
    for package in metadata().workspace_packages() {
        let root = package.manifest_path.parent().unwrap();
        let file = [root.join("src/lib.rs"), root.join("src/main.rs")]
            .into_iter()
            .find(|file| file.exists())
            .unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let page: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
        assert!(page.len() > 80, "{file} has no page that says what the crate does");
        let manifest = std::fs::read_to_string(&package.manifest_path).unwrap();
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{} leaves the workspace's lints",
            package.name
        );
    }
}
