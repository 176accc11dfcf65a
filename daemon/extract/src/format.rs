//! What a document is, by its path first and its content second.

/// How a document is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Prose,
    Markdown,
    Html,
    /// Source code or markup that people write as code, with its language's lowercase name.
    Code(&'static str),
    Json,
    Jsonl,
    /// The delimiter, where the extension tells it.
    Table(Option<u8>),
    Binary,
}

use Format::{Binary, Code, Html, Json, Jsonl, Markdown, Prose, Table};

/// Extensions that say what a document is. Markup with little of its own in it (reStructuredText, AsciiDoc, Org, wiki)
/// reads as prose; markup full of commands (TeX, troff, XML) as code.
const EXTENSIONS: &[(Format, &[&str])] = &[
    (
        Prose,
        &[
            "txt",
            "text",
            "rst",
            "rest",
            "adoc",
            "asciidoc",
            "org",
            "wiki",
            "mediawiki",
            "textile",
            "log",
            "eml",
            "mbox",
            "nfo",
            "srt",
            "vtt",
            "license",
            "copyright",
        ],
    ),
    (Markdown, &["md", "markdown", "mdown", "mkd", "mdx", "rmd", "qmd"]),
    (Html, &["html", "htm", "xhtml", "xht"]),
    (Json, &["json", "geojson", "ipynb", "webmanifest", "har", "topojson"]),
    (Jsonl, &["jsonl", "ndjson", "jsonlines"]),
    (Table(None), &["csv"]),
    (Table(Some(b'\t')), &["tsv", "tab"]),
    (Table(Some(b'|')), &["psv"]),
    (Code("ada"), &["ada", "adb", "ads"]),
    (Code("assembly"), &["asm", "s", "nasm"]),
    (Code("awk"), &["awk"]),
    (Code("batch"), &["bat", "cmd"]),
    (Code("bibtex"), &["bib"]),
    (Code("c"), &["c", "h"]),
    (Code("c#"), &["cs", "csx"]),
    (Code("c++"), &["cc", "cpp", "cxx", "c++", "hh", "hpp", "hxx", "h++", "ipp", "tpp"]),
    (Code("clojure"), &["clj", "cljs", "cljc", "edn"]),
    (Code("cmake"), &["cmake"]),
    (Code("cobol"), &["cob", "cbl"]),
    (Code("common-lisp"), &["lisp", "lsp", "asd"]),
    (Code("crystal"), &["cr"]),
    (Code("css"), &["css", "scss", "sass", "less"]),
    (Code("cuda"), &["cu", "cuh"]),
    (Code("d"), &["d"]),
    (Code("dart"), &["dart"]),
    (Code("desktop"), &["desktop"]),
    (Code("diff"), &["diff", "patch"]),
    (Code("dockerfile"), &["dockerfile", "containerfile"]),
    (Code("dot"), &["dot", "gv"]),
    (Code("elixir"), &["ex", "exs"]),
    (Code("elm"), &["elm"]),
    (Code("emacs-lisp"), &["el"]),
    (Code("erlang"), &["erl", "hrl"]),
    (Code("f#"), &["fs", "fsi", "fsx"]),
    (Code("fortran"), &["f", "for", "f77", "f90", "f95", "f03", "f08"]),
    (Code("glsl"), &["glsl", "vert", "frag", "comp"]),
    (Code("go"), &["go"]),
    (Code("graphql"), &["graphql", "gql"]),
    (Code("groovy"), &["groovy", "gradle"]),
    (Code("haskell"), &["hs", "lhs"]),
    (
        Code("ini"),
        &[
            "ini",
            "cfg",
            "conf",
            "cnf",
            "properties",
            "service",
            "socket",
            "timer",
            "mount",
            "target",
            "env",
            "editorconfig",
            "gitconfig",
        ],
    ),
    (Code("java"), &["java"]),
    (Code("javascript"), &["js", "mjs", "cjs", "jsx"]),
    (Code("jsonc"), &["jsonc", "json5"]),
    (Code("jinja"), &["j2", "jinja", "jinja2"]),
    (Code("julia"), &["jl"]),
    (Code("kotlin"), &["kt", "kts"]),
    (Code("latex"), &["tex", "sty", "cls", "ltx"]),
    (Code("lua"), &["lua"]),
    (Code("m4"), &["m4", "ac"]),
    (Code("makefile"), &["mk", "mak", "am"]),
    (Code("mermaid"), &["mmd", "mermaid"]),
    (Code("meson"), &["meson"]),
    (Code("nim"), &["nim"]),
    (Code("nix"), &["nix"]),
    (Code("objective-c"), &["m", "mm"]),
    (Code("ocaml"), &["ml", "mli"]),
    (Code("pascal"), &["pas", "pp", "dpr"]),
    (Code("perl"), &["pl", "pm", "t", "pod"]),
    (Code("php"), &["php", "phtml"]),
    (Code("plantuml"), &["puml", "plantuml"]),
    (Code("po"), &["po", "pot"]),
    (Code("powershell"), &["ps1", "psm1", "psd1"]),
    (Code("prolog"), &["pro", "prolog"]),
    (Code("protobuf"), &["proto"]),
    (Code("python"), &["py", "pyi", "pyw", "pyx", "pxd"]),
    (Code("r"), &["r"]),
    (Code("racket"), &["rkt"]),
    (Code("ruby"), &["rb", "rake", "gemspec", "erb"]),
    (Code("rust"), &["rs"]),
    (Code("scala"), &["scala", "sc", "sbt"]),
    (Code("scheme"), &["scm", "ss"]),
    (Code("sed"), &["sed"]),
    (Code("shell"), &["sh", "bash", "zsh", "ksh", "fish", "bats", "postinst", "preinst", "postrm", "prerm"]),
    (Code("solidity"), &["sol"]),
    (Code("sql"), &["sql", "ddl", "psql", "plsql"]),
    (Code("starlark"), &["bzl", "bazel", "star"]),
    (Code("swift"), &["swift"]),
    (Code("systemverilog"), &["sv", "svh"]),
    (Code("tcl"), &["tcl"]),
    (Code("terraform"), &["tf", "tfvars", "hcl"]),
    (Code("texinfo"), &["texi", "texinfo"]),
    (Code("toml"), &["toml"]),
    (Code("troff"), &["roff", "troff", "mdoc", "man"]),
    (Code("typescript"), &["ts", "tsx", "mts", "cts"]),
    (Code("vala"), &["vala"]),
    (Code("vb"), &["vb", "vbs", "bas"]),
    (Code("verilog"), &["v", "vh"]),
    (Code("vhdl"), &["vhd", "vhdl"]),
    (Code("vim"), &["vim"]),
    (Code("vue"), &["vue", "svelte"]),
    (
        Code("xml"),
        &[
            "xml", "xsd", "xsl", "xslt", "svg", "wsdl", "plist", "dbk", "docbook", "xaml", "csproj", "rss",
            "atom",
        ],
    ),
    (Code("yaml"), &["yaml", "yml"]),
    (Code("zig"), &["zig"]),
    (
        Binary,
        &[
            "gz",
            "bz2",
            "xz",
            "zst",
            "lz4",
            "lzma",
            "zip",
            "7z",
            "rar",
            "tar",
            "tgz",
            "jar",
            "whl",
            "deb",
            "rpm",
            "iso",
            "img",
            "png",
            "jpg",
            "jpeg",
            "gif",
            "webp",
            "bmp",
            "ico",
            "tif",
            "tiff",
            "heic",
            "avif",
            "mp3",
            "mp4",
            "m4a",
            "ogg",
            "wav",
            "flac",
            "avi",
            "mov",
            "mkv",
            "webm",
            "pdf",
            "ps",
            "eps",
            "doc",
            "docx",
            "xls",
            "xlsx",
            "ppt",
            "pptx",
            "odt",
            "ods",
            "odp",
            "epub",
            "mobi",
            "woff",
            "woff2",
            "ttf",
            "otf",
            "eot",
            "o",
            "a",
            "so",
            "dll",
            "exe",
            "class",
            "pyc",
            "wasm",
            "bin",
            "sqlite",
            "db",
            "parquet",
            "arrow",
            "npy",
            "npz",
            "safetensors",
            "pt",
            "onnx",
            "gguf",
            "mo",
            "gpg",
            "kdbx",
        ],
    ),
];

/// File names that say what a document is, whatever follows their last dot; lowercase.
const NAMES: &[(Format, &[&str])] = &[
    (Code("cmake"), &["cmakelists.txt"]),
    (Code("dockerfile"), &["dockerfile", "containerfile"]),
    (Code("go"), &["go.mod", "go.sum", "go.work"]),
    (Code("groovy"), &["jenkinsfile"]),
    (
        Code("ini"),
        &[
            ".gitignore",
            ".gitattributes",
            ".gitmodules",
            ".dockerignore",
            ".npmrc",
            "codeowners",
            "crontab",
            "fstab",
        ],
    ),
    (Code("jsonc"), &[".eslintrc", ".babelrc", "tsconfig.json", "jsconfig.json", "devcontainer.json"]),
    (Code("makefile"), &["makefile", "gnumakefile", "kbuild", "rules.mk"]),
    (Code("meson"), &["meson.build", "meson_options.txt"]),
    (Code("perl"), &["makefile.pl", "cpanfile"]),
    (Code("python"), &["sconstruct", "sconscript", "wscript"]),
    (Code("ruby"), &["rakefile", "gemfile", "vagrantfile", "podfile", "brewfile"]),
    (Code("shell"), &[".bashrc", ".bash_profile", ".profile", ".zshrc", "pkgbuild", "configure"]),
    (Code("starlark"), &["build", "workspace", "build.bazel", "tiltfile"]),
    (Code("toml"), &["cargo.lock", "pipfile", "poetry.lock"]),
    (Code("vim"), &[".vimrc"]),
    (Code("yaml"), &[".clang-format", ".clang-tidy"]),
];

/// Programs after `#!`, without their version.
const INTERPRETERS: &[(&str, &[&str])] = &[
    ("awk", &["awk", "gawk", "mawk"]),
    ("javascript", &["node", "nodejs", "deno", "bun"]),
    ("lua", &["lua", "luajit"]),
    ("makefile", &["make"]),
    ("perl", &["perl"]),
    ("php", &["php"]),
    ("python", &["python", "pypy", "uv"]),
    ("r", &["rscript"]),
    ("ruby", &["ruby"]),
    ("sed", &["sed"]),
    ("shell", &["sh", "bash", "dash", "zsh", "ksh", "fish"]),
    ("tcl", &["tclsh", "wish", "expect"]),
];

/// First bytes of formats that hold no text, for files whose extension does not say so.
const MAGIC: &[&[u8]] = &[
    b"\x1f\x8b",
    b"PK\x03\x04",
    b"BZh",
    b"\xfd7zXZ",
    b"\x28\xb5\x2f\xfd",
    b"7z\xbc\xaf",
    b"%PDF-",
    b"%!PS",
    b"\x7fELF",
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"GIF8",
    b"RIFF",
    b"OggS",
    b"SQLite format 3\0",
    b"!<arch>\n",
    b"\xca\xfe\xba\xbe",
];

/// What the path says, if it says anything.
pub(crate) fn by_path(path: &str) -> Option<Format> {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    if let Some(format) = find(NAMES, &name) {
        return Some(format);
    }
    // A template is read as what it makes.
    let name = [".in", ".tmpl", ".template", ".example", ".sample", ".dist"]
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))
        .unwrap_or(&name);
    match name.rsplit_once('.') {
        Some((_, extension)) => find(EXTENSIONS, extension).or_else(|| find(NAMES, name)),
        None => find(NAMES, name),
    }
}

fn find(table: &[(Format, &[&str])], word: &str) -> Option<Format> {
    table.iter().find(|(_, words)| words.contains(&word)).map(|(format, _)| *format)
}

/// Whether the first bytes are those of a format that holds no text.
pub(crate) fn is_binary(bytes: &[u8]) -> bool {
    MAGIC.iter().any(|magic| bytes.starts_with(magic))
}

/// What the document is, once its text is known.
pub(crate) fn by_content(path: &str, known: Option<Format>, text: &str) -> Format {
    let start = text[..text.floor_char_boundary(512)].trim_start();
    let lower = start.to_ascii_lowercase();
    match known {
        // Two extensions that other formats share.
        Some(Code("typescript")) if lower.starts_with("<?xml") => Code("xml"),
        Some(Code("perl")) if path.ends_with(".t") && is_troff(start) => Code("troff"),
        Some(format) => format,
        None if lower.starts_with("<!doctype html") || lower.starts_with("<html") => Html,
        None if lower.starts_with("<?xml") && lower.contains("<html") => Html,
        None if lower.starts_with("<?xml") => Code("xml"),
        None if is_troff(start) => Code("troff"),
        None if lower.starts_with("diff --git ") || lower.starts_with("--- a/") => Code("diff"),
        None => start.strip_prefix("#!").and_then(interpreter).map_or(Prose, Code),
    }
}

/// Manual pages begin with a comment or with a macro that sets their title.
fn is_troff(start: &str) -> bool {
    [".\\\"", "'\\\"", ".TH ", ".Dd ", ".so man"].iter().any(|macros| start.starts_with(macros))
}

fn interpreter(line: &str) -> Option<&'static str> {
    let line = line.lines().next()?;
    let mut words = line.split_ascii_whitespace().map(|word| word.rsplit('/').next().unwrap_or(word));
    let program = words.find(|word| *word != "env" && !word.starts_with('-'))?;
    let program = program.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.').to_ascii_lowercase();
    INTERPRETERS.iter().find(|(_, programs)| programs.contains(&program.as_str())).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::{Format, by_content, by_path};

    #[test]
    fn paths_and_contents_tell_the_format() {
        let format = |path: &str, text: &str| by_content(path, by_path(path), text);
        for (path, text, expected) in [
            ("src/main.rs", "", Format::Code("rust")),
            ("a/b/Makefile", "", Format::Code("makefile")),
            ("a/Makefile.in", "", Format::Code("makefile")),
            ("config.h.in", "", Format::Code("c")),
            ("CMakeLists.txt", "", Format::Code("cmake")),
            ("README", "hello", Format::Prose),
            ("README.md", "hello", Format::Markdown),
            ("run", "#!/usr/bin/env -S python3.11 -u\n", Format::Code("python")),
            ("run", "#!/bin/sh\n", Format::Code("shell")),
            ("index", "\n<!DOCTYPE HTML>\n<p>", Format::Html),
            ("ls.1", ".\\\" comment\n.TH LS 1\n", Format::Code("troff")),
            ("syslog.1", "Jan 1 host started\n", Format::Prose),
            ("x.TSV", "", Format::Table(Some(b'\t'))),
            ("de.ts", "<?xml version='1.0'?><TS>", Format::Code("xml")),
            ("folder.with.dots/plain", "words", Format::Prose),
            ("changelog.Debian.gz", "", Format::Binary),
        ] {
            assert_eq!(format(path, text), expected, "{path}");
        }
    }

    #[test]
    fn no_extension_stands_for_two_formats() {
        let mut seen = std::collections::BTreeMap::new();
        for (format, words) in super::EXTENSIONS {
            for word in *words {
                assert_eq!(seen.insert(word, format), None, "{word}");
                assert_eq!(*word, word.to_ascii_lowercase());
            }
        }
    }
}
