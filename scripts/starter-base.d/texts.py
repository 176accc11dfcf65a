"""The texts that the starter base learns from: Debian packages under permissive licences.

Each entry: package, licence of the files that are taken, and selections of (pattern below the package's root,
kind, bytes of text at most). What is not matched is not read. PostgreSQL's documentation is what the demo trains on
and examines, so nothing about PostgreSQL may be in here: `corpus.py` also drops every document that names it often.
"""

DOC = "usr/share/doc/"
PYTHON = "usr/lib/python3/dist-packages/"
CRATES = "usr/share/cargo/registry/"
MB = 1_000_000

TEXTS = [
    ("python3.11-doc", "PSF-2.0, examples 0BSD", [(DOC + "python3.11/html/**/*.html", "html", 12 * MB)]),
    ("rust-doc", "MIT or Apache-2.0", [
        (DOC + "rust-doc/html/book/*.html", "html", 2 * MB),
        (DOC + "rust-doc/html/reference/**/*.html", "html", 2 * MB),
        (DOC + "rust-doc/html/nomicon/*.html", "html", MB),
        (DOC + "rust-doc/html/rust-by-example/**/*.html", "html", MB),
        (DOC + "rust-doc/html/embedded-book/**/*.html", "html", MB),
        (DOC + "rust-doc/html/edition-guide/**/*.html", "html", MB),
        (DOC + "rust-doc/html/rustc/**/*.html", "html", MB),
        (DOC + "rust-doc/html/rustdoc/**/*.html", "html", MB),
        (DOC + "rust-doc/html/error-index.html", "html", MB),
        (DOC + "rust-doc/html/std/**/*.html", "html", 2 * MB),
    ]),
    ("nodejs-doc", "Expat", [(DOC + "nodejs/api/*.html", "html", 4 * MB)]),
    ("apache2-doc", "Apache-2.0", [
        (DOC + "apache2-doc/manual/en/**/*.html", "html", 4 * MB),
        (DOC + "apache2-doc/manual/de/**/*.html", "html", MB),
        (DOC + "apache2-doc/manual/fr/**/*.html", "html", MB),
        (DOC + "apache2-doc/manual/es/**/*.html", "html", MB),
    ]),
    ("python-django-doc", "BSD-3-Clause", [(DOC + "python-django-doc/html/**/*.html", "html", 5 * MB)]),
    ("python-sqlalchemy-doc", "Expat", [(DOC + "python-sqlalchemy-doc/html/**/*.html", "html", MB)]),
    ("python-flask-doc", "BSD-3-Clause", [(DOC + "python-flask-doc/html/**/*.html", "html", MB)]),
    ("python-jinja2-doc", "BSD-3-Clause", [(DOC + "python-jinja2-doc/html/**/*.html", "html", MB)]),
    ("python-scipy-doc", "BSD-3-Clause", [(DOC + "python-scipy-doc/html/tutorial/**/*.html", "html", 2 * MB)]),
    ("twisted-doc", "Expat", [
        (DOC + "twisted-doc/html/[!a]*/**/*.html", "html", 2 * MB),
        (DOC + "twisted-doc/html/_downloads/**/*.py", "code", MB),
    ]),
    ("python-tornado-doc", "Apache-2.0", [(DOC + "python-tornado-doc/html/**/*.html", "html", MB)]),
    ("sphinx-doc", "BSD-2-Clause", [(DOC + "sphinx-doc/html/**/*.html", "html", MB)]),
    ("sqlite3-doc", "public domain", [(DOC + "sqlite3/**/*.html", "html", 6 * MB)]),
    ("llvm-16-doc", "Apache-2.0 with LLVM exception", [(DOC + "llvm-16-doc/html/*.html", "html", 4 * MB)]),
    ("clang-16-doc", "Apache-2.0 with LLVM exception", [(DOC + "clang-16/html/*.html", "html", 3 * MB)]),
    ("libcurl4-doc", "curl (MIT-like)", [
        (DOC + "libcurl4/**/*.md", "markdown", MB),
        (DOC + "libcurl4/examples/*.c", "code", MB),
    ]),
    ("tomcat10-docs", "Apache-2.0", [(DOC + "tomcat10-docs/docs/**/*.html", "html", 2 * MB)]),
    ("libboost1.81-doc", "BSL-1.0", [
        (DOC + "libboost1.81-doc/doc/html/**/*.html", "html", MB),
        (DOC + "libboost1.81-doc/**/*.cpp", "code", 2 * MB),
    ]),
    ("dict-jargon", "public domain", [("usr/share/dictd/jargon.dict.dz", "jargon", 2 * MB)]),
    ("libpython3.11-minimal", "PSF-2.0", [("usr/lib/python3.11/**/*.py", "code", 2 * MB)]),
    ("libpython3.11-stdlib", "PSF-2.0", [("usr/lib/python3.11/**/*.py", "code", 2 * MB)]),
    ("python3-django", "BSD-3-Clause", [(PYTHON + "django/**/*.py", "code", 2 * MB)]),
    ("golang-1.19-src", "BSD-3-Clause (Go)", [
        ("usr/share/go-1.19/src/[a-z]*/**/*.go", "code", 3 * MB),
        ("usr/share/go-1.19/src/runtime/**/*.c", "code", MB),
    ]),
    ("librust-tokio-dev", "MIT", [
        (CRATES + "*/src/**/*.rs", "code", 2 * MB),
        (CRATES + "*/*.md", "markdown", MB),
    ]),
    ("librust-serde-dev", "MIT or Apache-2.0", [(CRATES + "*/src/**/*.rs", "code", MB)]),
    ("librust-regex-dev", "MIT or Apache-2.0", [
        (CRATES + "*/src/**/*.rs", "code", MB),
        (CRATES + "*/*.md", "markdown", MB),
    ]),
    ("librust-clap-dev", "MIT or Apache-2.0", [
        (CRATES + "*/src/**/*.rs", "code", MB),
        (CRATES + "*/**/*.md", "markdown", MB),
    ]),
    ("node-undici", "Expat", [
        ("usr/share/nodejs/undici/**/*.js", "code", 2 * MB),
        (DOC + "node-undici/**/*.md", "markdown", MB),
    ]),
    ("node-lodash", "Expat", [("usr/share/nodejs/lodash/[a-z]*.js", "code", MB)]),
]

if __name__ == "__main__":
    print(*(package for package, _, _ in TEXTS))
